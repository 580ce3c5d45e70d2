from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stackctl.errors import JobFailed, MissingHere
from stackctl.validate import sources

POD = """\
apiVersion: v1
kind: Pod
metadata: {name: one}
spec: {containers: [{name: one, image: debian}]}
"""


def test_without_hadolint_the_reason_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda *args, **kwargs: None)
    with pytest.raises(MissingHere, match="hadolint is not installed"):
        sources.lint(tmp_path, [])


def test_a_valid_manifest_passes_and_an_unknown_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(POD)
    assert sources.manifest(path) == ""
    path.write_text(POD + "---\napiVersion: example.com/v1\nkind: Own\nmetadata: {name: x}\n")
    assert sources.manifest(path) == "no schema is known for Own"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: one, image: debian", "name: one, imag: debian", "Pod: Additional properties are not allowed"),
        ("kind: Pod", "knd: Pod", "it needs apiVersion and kind"),
        ("kind: Pod", "kind: [Pod", "is not valid YAML"),
        ("containers: [{name: one, image: debian}]", "containers: 3", "Pod: 3 is not of type 'array'"),
    ],
)
def test_a_broken_manifest_is_refused_by_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(POD.replace(old, new))
    with pytest.raises(JobFailed) as error:
        sources.manifest(path)
    assert said in str(error.value)


def test_no_manifests_are_no_fault(tmp_path: Path) -> None:
    (result,) = sources.kubernetes(tmp_path)
    assert (result.state, result.message) == ("ok", "no manifests")
