"""Measurements: each script stands alone; `python -m bench` runs them all."""
