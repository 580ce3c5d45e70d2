"""Checks of cuda."""
