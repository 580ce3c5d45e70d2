from __future__ import annotations

import pytest

from stackctl.images import cuda
from stackctl.images.lockfile import Pin


def pins(*names: str) -> list[Pin]:
    return [Pin(name, version, "", text) for text in names for name, _, version in [text.partition("==")]]


def test_versions_come_from_either_family_of_names() -> None:
    thirteen = pins("nvidia-cuda-runtime==13.0.96", "nvidia-cudnn-cu13==9.20.0.48", "nvidia-nccl-cu13==2.29.7")
    assert cuda.versions(thirteen) == {"cuda": "13.0.96", "cudnn": "9.20.0.48", "nccl": "2.29.7"}
    assert cuda.versions(pins("nvidia-nccl-cu12==2.32.3", "numpy==2.4.6")) == {"nccl": "2.32.3"}


@pytest.mark.parametrize(
    ("names", "wanted", "said"),
    [
        (["nvidia-cublas-cu12==12.9.3.13", "nvidia-cuda-runtime-cu12==12.9.79"], "12.9", ""),
        (["cuda-toolkit==13.0.3.0", "nvidia-nccl-cu13==2.29.7", "cuda-pathfinder==1.9.0"], "13.0", ""),
        (["numpy==2.4.6"], "", ""),
        (
            ["nvidia-x-cu12==1", "nvidia-x-cu13==2"],
            "12.9",
            "one image has one CUDA major, but nvidia-x-cu12==1 is for CUDA 12 and nvidia-x-cu13==2 is for CUDA 13",
        ),
        (["cuda-toolkit==13.0.3.0"], "12.9", "the catalog says CUDA 12.9, but cuda-toolkit==13.0.3.0 is for CUDA 13"),
        (["nvidia-nccl-cu12==2.32.3"], "", "a CPU variant has no CUDA, but nvidia-nccl-cu12==2.32.3 is for CUDA 12"),
    ],
)
def test_one_cuda_major_an_image(names: list[str], wanted: str, said: str) -> None:
    assert cuda.clash(cuda.majors(pins(*names)), wanted) == said
