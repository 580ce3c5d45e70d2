from __future__ import annotations

import msgspec
import pytest

from stackctl import assets
from stackctl.images import catalog, matrix

ROWS = [matrix.row(target, assets.images_dir()) for target in catalog.targets(catalog.load())]


def test_a_row_has_the_versions_of_its_lock() -> None:
    rows = {(row.image, row.variant): row for row in ROWS}
    cuda = rows["pytorch", "cuda"]
    assert cuda.versions == {"torch": "2.13.0"}
    assert (cuda.cuda, cuda.cudnn, cuda.nccl) == ("13.0", "9.20.0.48", "2.29.7")
    cpu = rows["horovod-tensorflow", "cpu"]
    assert set(cpu.versions) == {"tensorflow", "horovod"}
    assert (cpu.cuda, cpu.cudnn, cpu.nccl, cpu.gpu_architectures) == ("", "", "", ())


def test_the_table_fits_a_terminal() -> None:
    lines = matrix.table(ROWS)
    assert len(lines) == len(ROWS) + 1
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize(
    ("known", "shown"),
    [({}, "?"), ({"built": False}, "no"), ({"built": False, "default": False}, "on demand"),
     ({"built": True, "size": 1_680_000_000}, "1.68 GB")],
)  # fmt: skip
def test_the_table_says_whether_an_image_is_built(known: dict[str, object], shown: str) -> None:
    row = msgspec.structs.replace(ROWS[0], **known)
    assert matrix.table([row])[1].endswith(f"  {shown}")


def test_details_name_the_driver_of_a_cuda_image_only() -> None:
    texts = {row.tag: "\n".join(matrix.details(row)) for row in ROWS}
    assert "NVIDIA 580 or newer" in texts["stack-pytorch:cuda"]
    assert "compute capability 7.5, " in texts["stack-pytorch:cuda"]
    assert "NVIDIA" not in texts["stack-pytorch:cpu"]
