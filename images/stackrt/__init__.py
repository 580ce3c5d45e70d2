"""What runs inside a stack image: the launcher and the reference trainers.

The same package is importable on the machine that drives the stack, so that local runs use the same code.
"""
