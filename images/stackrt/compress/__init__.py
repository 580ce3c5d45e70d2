"""Smaller models: `python -m stackrt.compress`, and `python -m stackrt.compress.pictures` for Keras."""
