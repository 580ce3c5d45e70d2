"""What a model is called in requests, where nobody says. Standard library only."""

import os
from pathlib import Path, PurePath

_OF_PARTS = ("", "export", "model", "hf", "saved_model")
"""Names of a run's parts, which say nothing of the run."""


def name_of(path: PurePath) -> str:
    """The name of a model's folder or file; of a run's folder `mine/export` it is `mine`."""
    path = Path(os.path.abspath(path)) if isinstance(path, Path) else path  # noqa: PTH100 - `..` is no name
    names = (path.stem if path.suffix == ".keras" else path.name, *(folder.name for folder in path.parents[:2]))
    return next((name for name in names if name not in _OF_PARTS), "model")
