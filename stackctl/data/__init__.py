"""Data sets that are fetched once and kept: what is there, and how it gets there."""
