"""What a run has kept on its claim, printed: sent to a pod's Python as its command line, so standard library only.

Arguments: the run's folder; the attempt, 0 for the newest; which files of its logs, as a pattern, empty for none.
Prints one JSON object, as lines that stackrt.checks.packed reads.
"""

import base64
import json
import sys
import zlib
from pathlib import Path

MARK, WIDTH = "stackrt.checks.report", 4_000
MOST = 16 << 20
"""Bytes of all files together: of each the end."""


def main(place: str, attempt: str, pattern: str) -> None:
    """Print the files."""
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
    row = {"attempt": newest, "files": files}
    data = base64.b64encode(zlib.compress(json.dumps(row).encode())).decode()
    parts = [data[start : start + WIDTH] for start in range(0, len(data), WIDTH)]
    for number, part in enumerate(parts, 1):
        print(MARK, f"{number}/{len(parts)}", part)


if __name__ == "__main__":
    main(*sys.argv[1:])
