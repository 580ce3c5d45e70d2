"""The bench that faults are planted on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.checks.bench import Alones, Bench, Reports


@pytest.fixture(scope="session")
def alones() -> Iterator[Alones]:
    made = Alones()
    yield made
    made.close()


@pytest.fixture(scope="session")
def reports(request: pytest.FixtureRequest, lacks: Callable[[str], str]) -> Iterator[Reports]:
    """Whole reports; those that tests of this run will ask for are begun at once."""
    wanted = [image for item in request.session.items if (image := reported(item, lacks))]
    # Asked for only where a container can run: other cases run without Docker.
    made = Reports(request.getfixturevalue("built")) if wanted else Reports(str)
    for image in sorted(wanted, key=lambda name: name.endswith(":cuda")):  # the larger ones, which few ask for, last
        made.begin(image)
    yield made
    made.close()


def reported(item: pytest.Item, lacks: Callable[[str], str]) -> str:
    """The image whose whole report a test will ask for; empty if it asks for none, or will be skipped."""
    given = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    needs = (name for marker in item.iter_markers("needs") for name in marker.args)
    return "" if any(map(lacks, needs)) else str(given.get("reported", ""))


@pytest.fixture
def bench(tmp_path: Path, reports: Reports, alones: Alones, request: pytest.FixtureRequest) -> Bench:
    def built(name: str) -> str:
        build: Callable[[str], str] = request.getfixturevalue("built")
        return build(name)

    return Bench(tmp_path, built, reports, alones)
