"""Writing what takes another's place: whoever looks, or is left with a killed run, sees the old or the new one."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A place of the same name to write a file or folder to; what was written there is moved to `path` in the end.

    If the block fails, what was there stays. A server that looks for new models takes no notice of it meanwhile.
    """
    aside = path.with_name(f".{path.name}.new")
    shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed
    aside.mkdir(parents=True)
    try:
        yield aside / path.name
        if path.is_dir():  # which nothing can be moved onto
            path.rename(aside / ".old")
        (aside / path.name).replace(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
