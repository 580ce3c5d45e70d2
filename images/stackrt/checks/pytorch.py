"""Checks of pytorch."""
