"""How much of each built image is more than its base and what its locks install.

    python bench/size.py [IMAGE] [--json] [--check]

base: the distribution image with its apt packages. wheels: the files that the locked packages install. compiled: their
Python, compiled at installation. Needs Docker, and images that are built; the others are passed over.
"""

import os
import subprocess
import sys

import msgspec

from bench import common
from stackctl.engines import docker
from stackctl.images import catalog, inventory
from stackctl.images.settings import from_env

BOUND = 1.04
"""Image over base, wheels and compiled Python."""


class Measured(msgspec.Struct, frozen=True):
    """One image; all in bytes."""

    tag: str
    image: int
    base: int
    wheels: int
    compiled: int

    @property
    def ratio(self) -> float:
        """Image over what it is made of."""
        return self.image / (self.base + self.wheels + self.compiled)


def base_size(tag: str) -> int:
    """Bytes of the layers up to the one that apt wrote, the distribution's own included, and of its compiler's."""
    layout = "{{.Size}}\t{{.CreatedBy}}"
    argv = ["docker", "history", "--no-trunc", "--human=false", "--format", layout, tag]
    rows = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    layers = [(int(size), made) for size, _, made in (row.partition("\t") for row in rows)]
    first = next(number for number, (_, made) in enumerate(layers) if "/run/apt-install" in made)
    return sum(
        size for number, (size, made) in enumerate(layers) if number >= first or made.startswith("COPY /compiler ")
    )


def measure(name: str | None) -> list[Measured]:
    """Every image of the catalog that is built here."""
    targets = catalog.targets(catalog.load(), name, prefix=from_env(os.environ).image_prefix)
    found = []
    for tag, info in docker.images([target.tag for target in targets]).items():
        inside = inventory.take(tag)
        wheels = sum(package.bytes for package in inside.python)
        found.append(Measured(tag, info.size, base_size(tag), wheels, inside.bytecode))
    return found


def main() -> int:
    """Measure, print, and with --check compare with the bound."""
    parser = common.parser(__doc__)
    parser.add_argument("image", nargs="?", help="only this image of the catalog")
    options = parser.parse_args()
    images = measure(options.image)
    lines = []
    for image in images:
        base, wheels, compiled, whole = (
            f"{size / 1e9:.2f}" for size in (image.base, image.wheels, image.compiled, image.image)
        )
        lines.append(
            f"  {image.tag:30} {whole:>5} GB = base {base} + wheels {wheels} + compiled {compiled}, "
            f"times {image.ratio:.3f}   bound {BOUND}"
        )
    rows = [{**msgspec.to_builtins(image), "ratio": image.ratio} for image in images]
    good = all(image.ratio <= BOUND for image in images)
    said = lines or ["  no image is built here: make images"]
    return common.conclude(options, {"images": rows, "bound": BOUND}, said, ok=good)


if __name__ == "__main__":
    sys.exit(main())
