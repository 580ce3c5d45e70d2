"""Runs: where their files live, how they are carried out, what they ended with."""
