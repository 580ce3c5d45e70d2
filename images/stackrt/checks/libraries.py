"""Checks of libraries."""
