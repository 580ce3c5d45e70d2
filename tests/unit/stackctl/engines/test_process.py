from __future__ import annotations

import sys
from pathlib import Path

import pytest

from stackctl.engines import process


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A tool's own folder and one of PATH; both have uv, and each has a program of its own."""
    for folder, names in (("tool", ("python", "uv", "hadolint")), ("path", ("uv", "docker"))):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "tool" / "python"))
    return {"tool": str(tmp_path / "tool"), "path": str(tmp_path / "path")}


def test_what_came_with_the_tool_is_found_before_paths(folders: dict[str, str]) -> None:
    env = {"PATH": folders["path"]}
    assert process.find("uv", env) == f"{folders['tool']}/uv"
    assert process.find("hadolint", env) == f"{folders['tool']}/hadolint"
    assert process.find("docker", env) == f"{folders['path']}/docker"
    assert process.find("absent", env) is None


def test_where_the_tools_folder_is_on_path_the_order_of_path_stands(folders: dict[str, str]) -> None:
    env = {"PATH": f"{folders['path']}:{folders['tool']}"}
    assert process.find("uv", env) == f"{folders['path']}/uv"
    assert process.find("hadolint", env) == f"{folders['tool']}/hadolint"


def test_a_path_is_taken_as_it_is(folders: dict[str, str]) -> None:
    assert process.find(f"{folders['path']}/uv", {}) == f"{folders['path']}/uv"
