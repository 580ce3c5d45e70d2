"""Checks of python."""
