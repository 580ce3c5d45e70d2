"""The launcher: turns one node of a job into its ranks, whatever started the node.

`python -m stackrt.launch -- CMD` runs once on every node. Standard library only. See docs/launcher.md.
"""
