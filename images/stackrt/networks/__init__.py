"""Models in plain torch, for trainers that start on every rank."""
