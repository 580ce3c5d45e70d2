"""The only modules that touch the world: processes and the Docker engine."""
