"""What a model is called in requests, where nobody says. Standard library only."""

from pathlib import Path, PurePath

_OF_PARTS = ("", "export", "model", "hf", "saved_model")
"""Names of a run's parts, which say nothing of the run."""


def name_of(path: PurePath) -> str:
    """The name of a model's folder or file; of a run's folder `mine/export` it is `mine`."""
    path = path.absolute() if isinstance(path, Path) else path
    names = (path.stem if path.suffix == ".keras" else path.name, *(folder.name for folder in path.parents[:2]))
    return next((name for name in names if name not in _OF_PARTS), "model")
