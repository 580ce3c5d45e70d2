"""Checks of process."""
