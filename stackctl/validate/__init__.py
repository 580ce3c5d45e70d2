"""Checks of what is in a checkout and of the images built from it, each with its outcome in words."""
