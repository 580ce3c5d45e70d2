from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stackrt.pictures import data, formats, known
from stackrt.train.errors import BadInputError

NOWHERE = Path("/nowhere")


def idx(path: Path, values: list[int] | bytes, *shape: int) -> Path:
    path.write_bytes(struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + bytes(values))
    return path


def idx_set(folder: Path, labels: list[int], test: list[int] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in (("train", labels), ("t10k", test)):
        if rows is not None:
            idx(folder / f"{name}-images-idx3-ubyte", bytes(len(rows) * 6), len(rows), 2, 3)
            idx(folder / f"{name}-labels-idx1-ubyte", rows, len(rows))
    return folder


def picture(path: Path, size: tuple[int, int], mode: str = "L", colour: int = 7) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


def test_the_shipped_pictures() -> None:
    found = data.load("digits", NOWHERE)
    assert found.shape == (8, 8, 1)
    assert [len(part) for part in (found.train, found.validation, found.test)] == [1408, 128, 261]
    whole = found.floats(found.train.pictures)
    assert (whole.min(), whole.max()) == (0.0, 1.0)
    assert whole.dtype == np.float32
    assert np.bincount(found.train.labels).min() > 120
    assert set(found.test.labels) == set(range(10))
    assert found.digest == data.load("digits", NOWHERE).digest


def test_known_sets_are_complete() -> None:
    for row in known.load().values():
        assert row.sources
        assert row.licence
        assert len(row.classes) == 10
        assert all(len(digest) == 64 for file in row.files for digest in file.sha256)


def test_a_known_set_is_read_from_the_cache(tmp_path: Path) -> None:
    folder = idx_set(tmp_path / "mnist", [number % 10 for number in range(60)], [3, 4])
    for path in list(folder.iterdir()):
        Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    found = data.load("mnist", tmp_path)
    assert (len(found.train), len(found.validation), list(found.test.labels)) == (55, 5, [3, 4])
    assert found.classes == tuple("0123456789")


@pytest.mark.parametrize("name", [b"caf\xe9", b"two\nlines"])
def test_a_class_whose_name_cannot_be_told_is_refused(tmp_path: Path, name: bytes) -> None:
    for folder in (b"a", name):
        (tmp_path / os.fsdecode(folder)).mkdir()
    with pytest.raises(BadInputError, match=r"a class is named '(caf\\udce9|two\\nlines)'"):
        data.load(str(tmp_path), NOWHERE)


def test_a_folder_that_has_the_name_of_a_set_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist").mkdir()
    with pytest.raises(BadInputError, match=r"stackctl data fetch mnist; the folder mnist here is \./mnist"):
        data.load("mnist", NOWHERE)


def test_a_set_that_is_not_fetched_says_how(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="fetch it once, where there is a network: stackctl data fetch cifar10"):
        data.load("cifar10", tmp_path)


def test_splits_are_the_same_each_time_and_take_nothing_twice(tmp_path: Path) -> None:
    folder = idx_set(tmp_path, [number % 2 for number in range(84)])
    idx(folder / "train-images-idx3-ubyte", bytes(number for number in range(84) for _ in range(6)), 84, 2, 3)
    found = data.load(str(folder), NOWHERE)
    parts = [set(part.pictures[:, 0, 0, 0]) for part in (found.train, found.validation, found.test)]
    assert [len(part) for part in parts] == [66, 6, 12]
    assert set.union(*parts) == set(range(84))
    assert data.load(str(folder), NOWHERE).digest == found.digest


def test_cifar_archive(tmp_path: Path) -> None:
    def archive(rows: int) -> Path:
        (tmp_path / "cifar10").mkdir(exist_ok=True)
        path = tmp_path / "cifar10" / "cifar-10-binary.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            for name in ("data_batch_1.bin", "data_batch_2.bin", "test_batch.bin", "readme.html"):
                record = bytes([3]) + bytes([1]) * 1024 + bytes([2]) * 1024 + bytes([255]) * 1024
                content = record * 20 if name.endswith(".bin") else b"text"
                member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                member.size = len(content) - (rows if name == "test_batch.bin" else 0)
                tar.addfile(member, io.BytesIO(content))
        return path

    archive(0)
    found = data.load("cifar10", tmp_path)
    assert found.shape == (32, 32, 3)
    assert (len(found.train), len(found.validation), len(found.test)) == (37, 3, 20)
    assert list(found.train.pictures[0, 0, 0]) == [1, 2, 255]
    assert set(found.train.labels) == {3}
    archive(5)
    with pytest.raises(BadInputError, match="is damaged: it lacks batches"):
        data.load("cifar10", tmp_path)
    (tmp_path / "cifar10" / "cifar-10-binary.tar.gz").write_bytes(b"\x1f\x8bno")
    with pytest.raises(BadInputError, match="cannot be read"):
        data.load("cifar10", tmp_path)


def test_folders_by_class(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for number in range(14):
            picture(tmp_path / name / f"{number}.png", (5, 4), "RGB" if number == 3 else "L")
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    found = data.load(str(tmp_path), NOWHERE)
    assert found.classes == ("cat", "dog")
    assert found.shape == (4, 5, 3)
    assert len(found.train) + len(found.validation) + len(found.test) == 28


def test_folders_with_parts_of_their_own(tmp_path: Path) -> None:
    for part, count in (("train", 12), ("val", 1), ("test", 2)):
        for name in ("a", "b"):
            for number in range(count):
                picture(tmp_path / part / name / f"{number}.png", (4, 4))
    found = data.load(str(tmp_path), NOWHERE)
    assert [len(part) for part in (found.train, found.validation, found.test)] == [24, 2, 4]
    assert found.shape == (4, 4, 1)
    picture(tmp_path / "test" / "c" / "0.png", (4, 4))
    with pytest.raises(BadInputError, match="test and train differ in their classes: c"):
        data.load(str(tmp_path), NOWHERE)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fashion-mnits", "did you mean fashion-mnist?"),
        ("flowers", "there are digits, fashion-mnist, mnist, cifar10"),
        (__file__, "is a file; name a folder"),
    ],
)
def test_an_unknown_set_is_refused(name: str, said: str) -> None:
    with pytest.raises(BadInputError) as refused:
        data.load(name, NOWHERE)
    assert said in str(refused.value)


def test_pictures_of_mixed_sizes_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "0.png", (4, 4))
    picture(tmp_path / "b" / "1.png", (4, 5))
    with pytest.raises(BadInputError, match=r"b/1.png: is 4 x 5, and .*a/0.png is 4 x 4; all pictures"):
        data.load(str(tmp_path), NOWHERE)


def test_what_is_no_picture_or_no_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="holds neither IDX files nor a folder for each class"):
        data.load(str(tmp_path), NOWHERE)
    picture(tmp_path / "a" / "0.png", (4, 4))
    (tmp_path / "b").mkdir()
    with pytest.raises(BadInputError, match="b: holds no pictures"):
        data.load(str(tmp_path), NOWHERE)
    (tmp_path / "b" / "1.png").write_bytes(b"\x89PNG no")
    with pytest.raises(BadInputError, match=r"b/1.png: cannot be read as a picture"):
        data.load(str(tmp_path), NOWHERE)
    picture(tmp_path / "b" / "1.png", (4, 4))
    with pytest.raises(BadInputError, match="2 pictures are too few"):
        data.load(str(tmp_path), NOWHERE)


def test_labels_out_of_range_are_refused(tmp_path: Path) -> None:
    idx_set(tmp_path / "mnist", [0, 1] * 20, [10])
    for path in list((tmp_path / "mnist").iterdir()):
        path.rename(f"{path}.gz")
    with pytest.raises(BadInputError, match="a label of test is 10, and with 10 classes they go from 0 to 9"):
        data.load("mnist", tmp_path)


def test_one_class_is_nothing_to_learn(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="all pictures are of one class"):
        data.load(str(idx_set(tmp_path, [0] * 20)), NOWHERE)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no IDX file"),
        (b"text", "is no IDX file"),
        (struct.pack(">BBBBII", 0, 0, 8, 2, 2, 2) + b"abc", r"is damaged: it announces 2 x 2 bytes, and has 3"),
        (struct.pack(">BBBBI", 0, 0, 8, 1, 2) + b"abc", r"is damaged: it announces 2 bytes, and has 3"),
        (struct.pack(">BBBBI", 0, 0, 13, 1, 2) + b"abc", "holds values of type 13 in 1 dimensions"),
        (gzip.compress(struct.pack(">BBBBI", 0, 0, 8, 1, 2) + b"ab")[:-6], "is damaged"),
        (gzip.compress(struct.pack(">BBBBI", 0, 0, 8, 1, 2) + b"ab")[:10] + b"\xff\xff\xff", "is damaged"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "train-labels-idx1-ubyte"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=said) as refused:
        formats.read_idx(path)
    assert str(refused.value).startswith(str(path))


def test_idx_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    folder = idx_set(tmp_path, [0, 1, 2])
    idx(folder / "train-labels-idx1-ubyte", [0, 1], 2)
    with pytest.raises(BadInputError, match="has 2 labels for the 3 pictures of train-images-idx3-ubyte"):
        data.load(str(folder), NOWHERE)
    (folder / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(BadInputError, match="no labels, as train-labels-idx1-ubyte"):
        data.load(str(folder), NOWHERE)


def test_idx_files_without_pictures_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="train-images-idx3-ubyte: holds no pictures: it says 0 x 2 x 3"):
        data.load(str(idx_set(tmp_path, [])), NOWHERE)


def test_grey_of_sixteen_bits_keeps_its_shades(tmp_path: Path) -> None:
    shades = np.linspace(0, 65535, 64).reshape(8, 8)
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(8):
            Image.fromarray(shades.astype(np.uint16)).save(
                tmp_path / label / f"{number}.{'tif' if number % 2 else 'png'}"
            )
    found = data.load(str(tmp_path), NOWHERE).train.pictures
    assert found.shape[1:] == (8, 8, 1)
    assert (found == (shades.astype(np.uint16) >> 8)[None, :, :, None]).all()
    with Image.open(tmp_path / "a" / "0.png") as image:
        assert (formats.in_channels(image, 1) == found[0]).all()
        assert (formats.in_channels(image, 3) == np.repeat(found[0], 3, 2)).all()
    Image.fromarray(shades.astype(np.float32)).save(tmp_path / "a" / "x.tif")
    with pytest.raises(BadInputError, match=r"x\.tif: cannot be read as a picture: its numbers are neither"):
        data.load(str(tmp_path), NOWHERE)


def test_what_a_file_manager_left_is_no_picture(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for number in range(20):
            picture(tmp_path / label / f"{number}.png", (4, 4))
        (tmp_path / label / "._1.png").write_bytes(b"Mac OS X")
    assert len(data.load(str(tmp_path), NOWHERE).classes) == 2


def test_one_part_has_one_folder(tmp_path: Path) -> None:
    for part in ("train", "val", "validation"):
        for label in ("a", "b"):
            picture(tmp_path / part / label / "1.png", (4, 4))
    with pytest.raises(BadInputError, match="holds both validation and val"):
        data.load(str(tmp_path), NOWHERE)


def test_where_sets_are_kept() -> None:
    assert known.folder({"STACK_DATA": "/data"}) == Path("/data")
    assert known.folder({"STACK_DATA": "~no-such-user/data"}) == Path("~no-such-user/data")
    assert known.folder({"XDG_CACHE_HOME": "/c", "HOME": "/h"}) == Path("/c/stackctl/data")
    assert known.folder({"XDG_CACHE_HOME": "c", "HOME": "/h"}) == Path("/h/.cache/stackctl/data")
