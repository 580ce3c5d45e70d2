"""A data set of pictures: found by name or folder, split into training, validation and test the same way everywhere."""

import difflib
import gzip
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stackrt.pictures import formats, known
from stackrt.pictures.formats import Part, Pixels, Whole
from stackrt.train import paths
from stackrt.train.errors import BadInputError

Floats = npt.NDArray[np.float32]
DIGITS = Path(__file__).parent.parent / "train" / "data" / "digits.csv.gz"
DIGITS_TEST = 261  # the last ones: people whose digits are in no other part
VALIDATION = 12  # one picture of so many is kept out of training, to choose by
TEST = 7  # and one of so many is the test, where a set has none of its own


@dataclass(frozen=True)
class Split:
    """One part of a set: pictures [n, height, width, channels] and labels [n]."""

    pictures: Pixels
    labels: Whole

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Pictures:
    """A data set.

    Attributes:
        name: As it was asked for.
        train: What is trained on.
        validation: What choices are made by, as when to stop; never trained on.
        test: What is measured at the end alone.
        classes: The name of each label.
        brightest: The value of a white pixel.
        digest: SHA-256 of all of it: equal digests mean equal pictures in equal parts.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    brightest: int
    digest: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a picture."""
        _, height, width, channels = self.train.pictures.shape
        return height, width, channels

    def floats(self, pixels: Pixels) -> Floats:
        """Pictures as networks take them, from 0 to 1."""
        return pixels.astype(np.float32) / np.float32(self.brightest)

    @property
    def about(self) -> str:
        """One line for a person."""
        height, width, channels = self.shape
        parts = f"{len(self.train):,} to train on, {len(self.validation):,} to validate, {len(self.test):,} to test"
        return f"{self.name}: {len(self.classes)} classes, {height} x {width} x {channels}, {parts}"


def load(name: str, cache: Path) -> Pictures:
    """A data set, read and checked.

    Args:
        name: `digits`, a known set's name, `tfds:NAME`, or a folder of IDX files or of pictures by class.
        cache: Where fetched sets are kept; see `known.folder`.

    Raises:
        BadInputError: There is none of that name, it is not fetched yet, or what is there cannot be used.
    """
    look(name, cache)
    rows = known.load()
    classes: tuple[str, ...] = ()
    brightest = 255
    if name == known.SHIPPED:
        parts, brightest = _digits(), 16
    elif name in rows:
        parts, classes = _fetched(rows[name], cache), rows[name].classes
    elif name.startswith(known.TFDS):
        from stackrt.pictures import tfds

        parts, classes = tfds.load(name.removeprefix(known.TFDS), cache)
    else:
        parts, classes = _folder(Path(name))
    classes = classes or tuple(str(label) for label in range(int(parts["train"][1].max(initial=0)) + 1))
    _check(name, parts, classes)
    train, validation, test = _split(parts)
    digest = hashlib.sha256(repr(classes).encode())
    for part in (train, validation, test):
        digest.update(f"{part.pictures.shape}".encode())
        digest.update(part.pictures.tobytes())
        digest.update(part.labels.tobytes())
    return Pictures(name, train, validation, test, classes, brightest, digest.hexdigest())


def look(name: str, cache: Path) -> None:
    """See that there is a set of that name, and that it is fetched; nothing is read.

    Raises:
        BadInputError: There is none, or it is not.
    """
    rows = known.load()
    if name in rows:
        lacking = [file.name for file in rows[name].files if not paths.is_file(cache / name / file.name)]
        folders = [path for path in (cache, cache / name) if paths.is_folder(path)]
        closed = next((path for path in folders if not paths.may_search(path)), None)
        if lacking and closed:
            raise BadInputError(
                f"--data {name}: uid {os.getuid()} may not look into {closed}; let others read it, where it was "
                "fetched: chmod -R a+rX"
            )
        if lacking:
            folder = f"; the folder {name} here is ./{name}" if paths.is_folder(name) else ""
            raise BadInputError(
                f"--data {name}: is not in {cache} ({lacking[0]} is lacking); "
                f"fetch it once, where there is a network: stackctl data fetch {name}{folder}"
            )
    elif name != known.SHIPPED and not name.startswith(known.TFDS) and not paths.is_folder(name):
        raise BadInputError(f"--data {name}: {_unknown(name, [known.SHIPPED, *rows])}")


def _digits() -> dict[str, Part]:
    with gzip.open(DIGITS, "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    pixels, labels = table[:, :64].reshape(-1, 8, 8, 1).astype(np.uint8), table[:, 64]
    return {
        "train": (pixels[:-DIGITS_TEST], labels[:-DIGITS_TEST]),
        "test": (pixels[-DIGITS_TEST:], labels[-DIGITS_TEST:]),
    }


def _fetched(row: known.Known, cache: Path) -> dict[str, Part]:
    """The parts of a known set; its files' sums were checked when they were fetched, sizes and forms are now."""
    folder = cache / row.name
    return formats.cifar(folder / row.files[0].name) if row.form == "cifar" else formats.idx_folder(folder)


def _folder(folder: Path) -> tuple[dict[str, Part], tuple[str, ...]]:
    """The parts of a folder, and its classes if their names are known."""
    try:
        if formats.has_idx(folder):
            return formats.idx_folder(folder), ()
        within = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
        names = formats.classes_of(folder)
        if "train" not in names:
            if len(names) < 2:
                raise BadInputError(f"--data {folder}: holds neither IDX files nor a folder for each class")
            return {"train": formats.class_folders(folder, names)}, tuple(names)
        classes = formats.classes_of(folder / "train")
        parts = {}
        for name in names:
            if name not in within:
                raise BadInputError(f"{folder / name}: beside train there may be validation and test, and nothing else")
            if within[name] in parts:
                raise BadInputError(f"{folder}: holds both validation and val; leave one of them")
            if stray := set(formats.classes_of(folder / name)) ^ set(classes):
                raise BadInputError(f"{folder}: {name} and train differ in their classes: {', '.join(sorted(stray))}")
            parts[within[name]] = formats.class_folders(folder / name, classes)
    except OSError as error:
        raise BadInputError(f"--data {folder}: {error.filename}: {error.strerror}") from None
    return parts, tuple(classes)


def _unknown(name: str, names: list[str]) -> str:
    if paths.is_there(name):
        return "is a file; name a folder of IDX files, or one with a folder of pictures for each class"
    near = difflib.get_close_matches(name, names, 1)
    meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
    return f"there is no data set and no folder of that name; {meant}"


def _check(name: str, parts: dict[str, Part], classes: tuple[str, ...]) -> None:
    """See that parts fit together and labels are classes.

    Raises:
        BadInputError: They do not.
    """
    shape = parts["train"][0].shape[1:]
    for part, (pixels, labels) in parts.items():
        if not len(labels):
            raise BadInputError(f"--data {name}: its part {part} holds no pictures")
        if pixels.shape[1:] != shape:
            sizes = [" x ".join(map(str, one)) for one in (pixels.shape[1:], shape)]
            raise BadInputError(f"--data {name}: pictures of {part} are {sizes[0]}, and those of train {sizes[1]}")
        least, most = int(labels.min()), int(labels.max())
        if least < 0 or most >= len(classes):
            wrong = least if least < 0 else most
            raise BadInputError(
                f"--data {name}: a label of {part} is {wrong}, and with {len(classes)} classes they go from 0 to "
                f"{len(classes) - 1}"
            )
    if len(classes) < 2:
        raise BadInputError(f"--data {name}: all pictures are of one class; there is nothing to learn")


def _split(parts: dict[str, Part]) -> tuple[Split, Split, Split]:
    """What a set does not have of its own is taken out of its training part: always the same pictures.

    Raises:
        BadInputError: Too few pictures.
    """
    pixels, labels = parts["train"]
    # RandomState gives the same numbers in every version of numpy; a set by class must be shuffled first.
    order: Whole = np.random.RandomState(0).permutation(len(labels))
    taken = {}
    for part, one_of in (("test", TEST), ("validation", VALIDATION)):
        if part in parts:
            taken[part] = Split(*parts[part])
            continue
        count = len(order) // one_of
        if not count:
            raise BadInputError(f"{len(labels)} pictures are too few: some are kept for {part}")
        chosen, order = np.sort(order[:count]), order[count:]
        taken[part] = Split(pixels[chosen], labels[chosen])
    rest = np.sort(order)
    return Split(pixels[rest], labels[rest]), taken["validation"], taken["test"]
