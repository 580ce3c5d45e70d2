"""What a run has kept on its claim: sent to a pod's Python on its command line, so standard library only."""

from pathlib import Path
from typing import Any

MOST = 16 << 20
"""Bytes of all files together: of each the end."""


def collect(place: str, attempt: str, pattern: str) -> dict[str, Any]:
    """The files, as `kept.Kept` has them.

    Args:
        place: The run's folder.
        attempt: Whose logs; 0 for the newest.
        pattern: Which files of its logs; empty for none.
    """
    folder = Path(place)
    attempts = sorted(int(path.name[8:]) for path in folder.glob("logs/attempt-*") if path.name[8:].isdigit())
    newest = int(attempt) or max(attempts, default=1)
    paths = [folder / "result.json", folder / "failure.json", folder / f"logs/attempt-{newest}/failure.json"]
    paths += sorted(folder.glob(f"logs/attempt-{newest}/{pattern}.log")) if pattern else []
    files = []
    for path in paths:
        if path.is_file():
            size, share = path.stat().st_size, MOST // len(paths)
            with path.open("rb") as file:
                file.seek(max(0, size - share))
                text = file.read().decode("latin-1")  # any bytes, one character each
            about = {"name": str(path.relative_to(folder)), "cut": max(0, size - share)}
            files.append({**about, "changed": path.stat().st_mtime, "text": text})
    return {"attempt": newest, "files": files}
