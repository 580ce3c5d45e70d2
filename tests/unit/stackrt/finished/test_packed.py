from __future__ import annotations

import json
import random
import zipfile
from pathlib import Path

import pytest

from stackrt.finished import packed


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_whatever_is_damaged_in_a_file_that_was_packed_in_any_way_is_said(tmp_path: Path, method: int) -> None:
    file = tmp_path / "model.keras"
    rows = {"config.json": json.dumps({"layers": list(range(200))}), "model.weights.h5": "0123456789abcdef" * 40}
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, text in rows.items():
            archive.writestr(name, text)
    assert packed.sizes(file) == {name: len(text) for name, text in rows.items()}
    whole, draws, refused = file.read_bytes(), random.Random(0), 0
    for number in range(200):
        spoilt = bytearray(whole)
        for _ in range(4):
            spoilt[draws.randrange(len(spoilt))] = draws.randrange(256)
        file.write_bytes(spoilt[: draws.randrange(len(spoilt))] if number % 3 == 0 else spoilt)
        try:
            packed.sizes(file)  # a time may be another, say, and nobody can tell
        except (ValueError, OSError) as error:  # a place in it may be before its beginning
            refused += bool(str(error))
    assert refused > 100
