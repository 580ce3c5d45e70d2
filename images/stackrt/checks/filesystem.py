"""Checks of filesystem."""
