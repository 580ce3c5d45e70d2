"""What there is to say about an image before it is built: from the catalog and its locks. Pure."""

from __future__ import annotations

from pathlib import Path

import msgspec

from stackctl.images import cuda, render
from stackctl.images.catalog import Target
from stackctl.images.lock_list import pins_of
from stackrt.contract import LOCK_LABEL


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One image and variant. `cudnn` and `nccl` are the locked versions, empty without CUDA, as is `cuda`.

    `budget` and `size` are in bytes. The last four fields are the engine's, null where it does not answer or has no
    such image.
    """

    image: str
    variant: str
    tag: str
    summary: str
    framework: str
    versions: dict[str, str]
    python: str
    base: str
    cuda: str
    cudnn: str
    nccl: str
    minimum_driver: str
    gpu_architectures: tuple[str, ...]
    lock: str
    budget: int
    default: bool
    built: bool | None = None
    size: int | None = None
    digest: str | None = None
    created: str | None = None


def row(target: Target, images: Path) -> Row:
    """All but what the engine knows.

    Raises:
        InvalidInput: A lock is absent.
    """
    versions = render.framework_versions(target, images)
    libraries = cuda.versions(pins_of(target, images, "framework"))
    return Row(
        image=target.name,
        variant=target.variant_name,
        tag=target.tag,
        summary=target.image.summary,
        framework=", ".join(f"{name} {version}" for name, version in versions.items()),
        versions=versions,
        python=target.base.python,
        base=target.base.image,
        cuda=target.variant.cuda,
        cudnn=libraries.get("cudnn", ""),
        nccl=libraries.get("nccl", ""),
        minimum_driver=target.variant.minimum_driver,
        gpu_architectures=target.variant.gpu_architectures,
        lock=render.labels(target, images)[LOCK_LABEL],
        budget=round(target.variant.budget_gb * 1e9),
        default=target.image.default,
    )


def table(rows: list[Row]) -> list[str]:
    """The matrix, a line an image and variant."""
    cells = [("IMAGE", "FRAMEWORK", "PYTHON", "CUDA", "CUDNN", "NCCL", "DRIVER", "BUILT")]
    for one in rows:
        driver = f"{one.minimum_driver}+" if one.minimum_driver else "-"
        libraries = (one.cuda or "-", one.cudnn or "-", one.nccl or "-")
        cells.append((one.tag, one.framework, one.python, *libraries, driver, _built(one)))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def details(one: Row) -> list[str]:
    """All about one image and variant, a line a subject."""
    lines = {"framework": one.framework, "base": f"{one.base}, Python {one.python}"}
    if one.cuda:
        lines["cuda"] = f"CUDA {one.cuda}, cuDNN {one.cudnn}, NCCL {one.nccl}"
        lines["driver"] = f"NVIDIA {one.minimum_driver} or newer"
        lines["gpus"] = f"compute capability {', '.join(one.gpu_architectures)}"
    lines["lock"] = one.lock
    lines["budget"] = f"{one.budget / 1e9:.2f} GB"
    lines["built"] = f"{_built(one)}, {one.digest[:19]}, {one.created}" if one.digest else _built(one)
    return [one.tag, f"  {one.summary}", *(f"  {name:10} {text}" for name, text in lines.items())]


def _built(one: Row) -> str:
    if one.size is not None:
        return f"{one.size / 1e9:.2f} GB"
    if one.built is None:
        return "?"
    return "no" if one.default else "on demand"
