"""stackctl from Python: what `from stackctl import …` gives."""
