"""Checks of tensorflow."""
