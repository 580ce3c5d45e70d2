"""In every CUDA image of the catalog: what can be proven without a GPU holds, and all else says why it was not run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stackctl.images import catalog
from tests.integration.checks.bench import results, whole

pytestmark = [pytest.mark.needs("docker", "cuda-images"), pytest.mark.timeout(1800)]

CUDA_IMAGES = [
    target.name
    for target in catalog.targets(catalog.load())
    if target.variant.cuda and target.variant_name == "cuda" and target.image.default
]


@pytest.mark.parametrize("name", CUDA_IMAGES)
def test_a_cuda_image_passes_without_a_gpu(name: str, built: Callable[[str], str]) -> None:
    rows = results(whole(built(f"{name}:cuda")))
    bad = {name: row for name, row in rows.items() if row.status == "fail"}
    assert not bad
    for check in ("cuda-libraries", "cuda-versions", "arch-flags", "nvrtc"):
        assert rows[check].status == "pass", rows[check]
    assert all(row.found for row in rows.values() if row.status == "skip")
