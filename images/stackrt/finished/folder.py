"""What a folder is that a person names as a model. Standard library only: what cannot work is said at once."""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackrt.train import paths
from stackrt.train.errors import BadInputError

RESULT, CONFIG, COMPRESSED = "result.json", "config.json", "compressed.json"
LANGUAGE_RUNS = ("gpt", "lm")
PICTURE_RUNS = ("keras",)
MAKERS = ("compress", "export")
"""Workloads that make other models of a model: their folders hold several."""
# What a run leaves before it has finished.
_BEGUN = ("checkpoints", "metrics.jsonl", "run.json", "job.json")


@dataclass(frozen=True)
class Found:
    """A model's place.

    Attributes:
        path: What was named.
        kind: `run`, `export` (a Hugging Face folder), `compressed` (what `compress` wrote) or `keras` (a file).
        result: A run's result.json.
        export: The folder of a run's export, if it is still there.
        about: The content of a compressed folder's compressed.json.
    """

    path: Path
    kind: str
    result: dict[str, Any] = field(default_factory=dict)
    export: Path | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def workload(self) -> str:
        """Which workload a run was."""
        return str(self.result.get("workload", ""))

    @property
    def options(self) -> dict[str, Any]:
        """The options of the run; of what `compress` wrote, those of the run that it came from; else none."""
        options = self.result.get("options") or self.about.get("options") or {}
        return options if isinstance(options, dict) else {}


def find(path: Path, told: str = "--model") -> Found:
    """See what a path is.

    Args:
        path: A folder, or a `.keras` file.
        told: The option that named it; begins an error.

    Raises:
        BadInputError: It is nothing that can be opened; says why, and what to name instead.
    """
    told = f"{told} {path}"
    if not paths.is_there(path):
        raise BadInputError(f"{told}: there is no such folder; name a finished run's, or an export's")
    if paths.is_file(path):
        if path.suffix == ".keras":
            return Found(path, "keras")
        raise BadInputError(f"{told}: is a file; name the folder of a finished run or of an export, or a .keras file")
    if paths.is_file(path / COMPRESSED):
        return Found(path, "compressed", about=read_json(path / COMPRESSED, told))
    if paths.is_file(path / RESULT):
        return _run(path, told)
    if paths.is_file(path / CONFIG):
        return Found(path, "export")
    if any(paths.is_there(path / name) for name in _BEGUN):
        raise BadInputError(
            f"{told}: this run has not finished: it has no {RESULT}; let it end, or go on with it by "
            "`stackctl run --resume --out FOLDER`"
        )
    raise BadInputError(
        f"{told}: is no model: it has neither {RESULT}, as a finished run has, nor {CONFIG}, as an export has"
    )


def see_that_kept(model: Path, out: Path, names: Iterable[str] = ()) -> None:
    """See that what is written does not take the place of the model that it is made from.

    Args:
        model: The model's folder.
        out: Where a result.json goes.
        names: Folders that are made or replaced in it.

    Raises:
        BadInputError: It would, or another run's result.json would be lost.
    """
    if out.resolve() == model.resolve():
        raise BadInputError(f"--out {out}: is the model's own folder; choose another")
    if paths.is_file(out / RESULT):
        workload = read_json(out / RESULT, f"--out {out}").get("workload")
        if workload not in MAKERS:
            raise BadInputError(f"--out {out}: holds a run of {workload}, whose {RESULT} would be lost; choose another")
    for name in names:
        if (out / name).resolve() == model.resolve():
            raise BadInputError(f"--out {out}: the model is in it, as {name}, and would be replaced; choose another")


def forget(out: Path) -> None:
    """Remove an earlier result.json: it tells of models that are replaced from now on."""
    with suppress(OSError):
        (out / RESULT).unlink()


def _run(path: Path, told: str) -> Found:
    result = read_json(path / RESULT, told)
    if result.get("workload") in MAKERS:
        inside = sorted(str(entry.parent.name) for entry in path.glob(f"*/{CONFIG}"))
        names = f": {', '.join(inside)}" if inside else ""
        raise BadInputError(f"{told}: holds several models; name one of the folders in it{names}")
    named = result.get("export")
    places = [Path(named), path / named, path / Path(named).name] if isinstance(named, str) else []
    export = next((place for place in places if paths.is_file(place / CONFIG)), None)
    return Found(path, "run", result, export)


def read_json(path: Path, told: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        BadInputError: It cannot be read, or is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is damaged"
        raise BadInputError(f"{told}: {path.name}: {why}") from None
    if not isinstance(found, dict):
        raise BadInputError(f"{told}: {path.name}: it is damaged")
    return found
