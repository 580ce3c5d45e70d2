"""Models for other programs: `python -m stackrt.export`, and `python -m stackrt.export.pictures` for Keras."""
