"""Checks of gpu_health."""
