"""The offline audit, with an advisory that is planted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from stackctl.images import lockfile
from tests.commands import ROOT

ADVISORY = """\
id: PYSEC-0000-1
aliases: [CVE-0000-1]
affected:
- package: {{ecosystem: PyPI, name: Tqdm}}
  ranges:
  - type: ECOSYSTEM
    events:
    - introduced: "0"
    - {limit}
"""


def audit(folder: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(ROOT / "scripts" / "audit.py"), str(folder)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_locked_version_that_an_advisory_names_is_found(tmp_path: Path) -> None:
    pins = lockfile.parse((ROOT / "images/locks/pytorch-cpu.txt").read_text())
    version = next(pin.version for pin in pins if pin.name == "tqdm")
    path = tmp_path / "vulns" / "tqdm" / "PYSEC-0000-1.yaml"
    path.parent.mkdir(parents=True)

    path.write_text(ADVISORY.format(limit=f"last_affected: {version}"))
    found = audit(tmp_path)
    assert found.returncode == 1
    assert f"tqdm {version}: PYSEC-0000-1, CVE-0000-1 (in " in found.stdout

    path.write_text(ADVISORY.format(limit=f"fixed: {version}"))
    assert audit(tmp_path).returncode == 0
    assert audit(tmp_path / "absent").returncode == 2
