"""The suite: is this image, host and network fit to train? `python -m stackrt.checks`; see docs/checks.md."""
