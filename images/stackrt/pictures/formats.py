"""Files of pictures and labels, as arrays: IDX, CIFAR's binary form, and a folder of pictures for each class."""

import gzip
import math
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stackrt.train.errors import BadInputError

Pixels = npt.NDArray[np.uint8]
Whole = npt.NDArray[np.int64]
Part = tuple[Pixels, Whole]
"""Pictures [n, height, width, channels] and their labels."""

KINDS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
_UNSIGNED_BYTES = 8  # of an IDX file's types
_MOST_DIMENSIONS = 4


def read_idx(path: Path) -> Pixels:
    """The array in an IDX file of bytes, packed by gzip or not.

    Raises:
        BadInputError: It cannot be read, or is damaged, short or of another form.
    """
    raw = _content(path)
    if len(raw) < 4 or raw[:2] != b"\0\0":
        raise BadInputError(f"{path}: is no IDX file: it does not begin with two zero bytes")
    kind, dimensions = raw[2], raw[3]
    if kind != _UNSIGNED_BYTES or not 1 <= dimensions <= _MOST_DIMENSIONS:
        raise BadInputError(f"{path}: holds values of type {kind} in {dimensions} dimensions; bytes in 1 to 4 are read")
    begin = 4 + 4 * dimensions
    shape = [int.from_bytes(raw[at : at + 4], "big") for at in range(4, begin, 4)]
    wanted, has = math.prod(shape), len(raw) - begin
    if has != wanted:
        raise BadInputError(
            f"{path}: is damaged: it announces {' x '.join(map(str, shape))} bytes, and has {max(0, has):,}"
        )
    return np.frombuffer(raw, np.uint8, offset=begin).reshape(shape)


def idx_part(pictures: Path, labels: Path) -> Part:
    """The pictures and labels of two IDX files.

    Raises:
        BadInputError: One cannot be used, or they do not belong together.
    """
    pixels, kinds = read_idx(pictures), read_idx(labels)
    if pixels.ndim not in (3, 4):
        raise BadInputError(f"{pictures}: has {pixels.ndim} dimensions; pictures have 3, or 4 in colour")
    if kinds.ndim != 1:
        raise BadInputError(f"{labels}: has {kinds.ndim} dimensions; labels have one")
    if len(pixels) != len(kinds):
        raise BadInputError(f"{labels}: has {len(kinds):,} labels for the {len(pixels):,} pictures of {pictures.name}")
    if not pixels.size:
        raise BadInputError(f"{pictures}: holds no pictures: it says {' x '.join(map(str, pixels.shape))}")
    return pixels.reshape(*pixels.shape[:3], -1), kinds.astype(np.int64)


def idx_folder(folder: Path) -> dict[str, Part]:
    """The parts of a folder of IDX files, named as MNIST's are: `train-images-idx3-ubyte.gz`; `train` and `test`.

    Raises:
        BadInputError: There is no training part, or a file cannot be used.
    """
    parts = {}
    for part, names in (("train", ("train",)), ("test", ("t10k", "test"))):
        pictures = _first(folder, names, "images")
        if pictures is None:
            continue
        labels = _first(folder, names, "labels")
        if labels is None:
            raise BadInputError(f"{folder}: has {pictures.name}, and no labels, as {names[0]}-labels-idx1-ubyte")
        parts[part] = idx_part(pictures, labels)
    if "train" not in parts:
        raise BadInputError(f"{folder}: has no train-images-idx3-ubyte[.gz]; MNIST's names are expected")
    return parts


def has_idx(folder: Path) -> bool:
    """Whether a folder holds IDX files."""
    return next(folder.glob("*-idx?-ubyte*"), None) is not None


def cifar(archive: Path) -> dict[str, Part]:
    """The parts of CIFAR-10's archive of the binary form.

    Raises:
        BadInputError: It cannot be read, or is damaged.
    """
    rows: dict[str, list[Pixels]] = {"train": [], "test": []}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in sorted(tar, key=lambda member: member.name):
                name = member.name.rpartition("/")[2]
                part = "test" if name == "test_batch.bin" else "train" if name.startswith("data_batch_") else ""
                file = tar.extractfile(member) if part else None
                if file is not None:
                    rows[part].append(np.frombuffer(file.read(), np.uint8))
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise BadInputError(f"{archive}: cannot be read: {error}; fetch it again") from None
    each = 1 + 3 * 32 * 32
    if not all(rows.values()) or any(batch.size % each for batches in rows.values() for batch in batches):
        raise BadInputError(f"{archive}: is damaged: it lacks batches, or parts of them; fetch it again")
    parts = {}
    for part, batches in rows.items():
        table = np.concatenate(batches).reshape(-1, each)
        pixels = np.ascontiguousarray(table[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        parts[part] = (pixels, table[:, 0].astype(np.int64))
    return parts


def classes_of(folder: Path) -> list[str]:
    """The folders of a folder that are classes, in order of name.

    Raises:
        BadInputError: A name cannot be written anywhere else.
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    for name in names:
        if len(name.splitlines()) > 1 or name.encode(errors="replace").decode() != name:
            raise BadInputError(f"{folder}: a class is named {name!a}, which is no text of one line; rename it")
    return names


def class_folders(folder: Path, classes: Sequence[str]) -> Part:
    """The pictures in `FOLDER/CLASS/*`, grey if all are grey.

    Raises:
        BadInputError: A picture cannot be read or has another size than the first, or a class has none.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise BadInputError("pictures in folders are read by pillow, which is not installed here") from None
    found: list[Pixels] = []
    labels: list[int] = []
    first: Path | None = None
    for label, name in enumerate(classes):
        paths = list(_pictures(folder / name))
        if not paths:
            raise BadInputError(f"{folder / name}: holds no pictures ({', '.join(KINDS)})")
        for path in paths:
            try:
                with Image.open(path) as image:
                    pixels = _pixels(image)
            except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
                raise BadInputError(f"{path}: cannot be read as a picture: {error}") from None
            first = first or path
            if found and pixels.shape[:2] != found[0].shape[:2]:
                raise BadInputError(
                    f"{path}: is {_size(pixels)}, and {first} is {_size(found[0])}; all pictures must have one size"
                )
            found.append(pixels)
            labels.append(label)
    colour = any(pixels.ndim == 3 for pixels in found)
    rows = [pixels if pixels.ndim == 3 else _coloured(pixels) if colour else pixels[:, :, None] for pixels in found]
    return np.stack(rows), np.array(labels, np.int64)


def _pixels(image: Any) -> Pixels:
    """Bytes of a picture, [height, width] if it is grey.

    Raises:
        ValueError: What is white in it is not known.
    """
    if image.mode.startswith("I;16"):  # pillow's own conversion cuts off all above 255
        return (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
    if image.mode in ("I", "F"):
        raise ValueError("its numbers are neither of 8 nor of 16 bits; save it as an 8-bit picture")
    return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"), np.uint8)


def in_channels(image: Any, channels: int) -> Pixels:
    """Bytes of a picture, [height, width, channels], grey or not as a network takes them.

    Raises:
        ValueError: What is white in it is not known.
    """
    if image.mode.startswith(("I", "F")):
        grey = _pixels(image)
        return _coloured(grey) if channels == 3 else grey[:, :, None]
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"), np.uint8)
    return pixels.reshape(*pixels.shape[:2], -1)


def _coloured(pixels: Pixels) -> Pixels:
    return np.repeat(pixels[:, :, None], 3, 2)


def _size(pixels: Pixels) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}"


def _pictures(folder: Path) -> Iterator[Path]:
    # What begins with a dot is no picture, whatever it ends in: macOS leaves such files beside each.
    here = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return (path for path in here if path.suffix.lower() in KINDS)


def _first(folder: Path, names: Sequence[str], what: str) -> Path | None:
    return next((path for name in names for path in sorted(folder.glob(f"{name}-{what}-idx?-ubyte*"))), None)


def _content(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadInputError(f"{path}: is damaged: {error}") from None
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}") from None
