"""Checks of horovod."""
