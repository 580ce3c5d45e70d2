"""Options of the suite that are judged before a check runs."""

from pathlib import Path
from typing import Any

import pytest

from stackrt.checks.options import UsageError, writable


def test_nodes_that_see_the_same_report_at_once_do_not_trip_over_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes share the run's folder: what one made to see whether it can be written, another may have removed."""
    file = tmp_path / "report.json"
    opened = Path.open

    def and_removed_by_another(path: Path, *arguments: Any, **named: Any) -> Any:
        handle = opened(path, *arguments, **named)
        path.unlink()
        return handle

    monkeypatch.setattr(Path, "open", and_removed_by_another)
    writable("--json", str(file))


def test_seeing_leaves_no_empty_report_and_keeps_one_that_is_there(tmp_path: Path) -> None:
    writable("--json", str(tmp_path / "new.json"))
    old = tmp_path / "old.json"
    old.write_text("{}")
    writable("--json", str(old))
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("old.json", "{}")]


def test_a_report_that_cannot_be_written_is_told_with_its_option(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--json .*no/report\.json: cannot be written: No such file"):
        writable("--json", str(tmp_path / "no" / "report.json"))
