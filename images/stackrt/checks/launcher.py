"""Checks of launcher."""
