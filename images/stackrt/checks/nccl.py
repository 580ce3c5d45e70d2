"""Checks of nccl."""
