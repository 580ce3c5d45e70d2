"""Checks of mpi."""
