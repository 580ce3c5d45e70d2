"""Standard streams that a parent has closed. The launcher and stackctl begin with this."""

import os


def fill_standard_streams() -> None:
    """Open the null device where stdin, stdout or stderr is closed, so that nothing else gets their numbers."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is fd
