"""Reference trainers: each is one script that reads top to bottom, with plain modules beside it."""
