from __future__ import annotations

import json
from pathlib import Path

import pytest

from stackrt.finished import folder
from stackrt.train.errors import BadInputError


@pytest.mark.parametrize(("workload", "kept"), [("gpt", True), ("keras", True), ("compress", False), ("export", False)])
def test_another_runs_result_is_not_lost(tmp_path: Path, workload: str, kept: bool) -> None:
    (tmp_path / "out" / "hf").mkdir(parents=True)
    (tmp_path / "out" / folder.RESULT).write_text(json.dumps({"workload": workload}))
    if kept:
        with pytest.raises(BadInputError, match=f"holds a run of {workload}"):
            folder.see_that_kept(tmp_path / "out" / "hf", tmp_path / "out")
    else:
        folder.see_that_kept(tmp_path / "out" / "hf", tmp_path / "out")
        folder.forget(tmp_path / "out")
        assert not (tmp_path / "out" / folder.RESULT).exists()
