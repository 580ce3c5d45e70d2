"""Checks of bandwidth."""
