"""Locks as the resolver makes them, in a copy of the checkout."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stackctl.images import lockfile
from tests.commands import ROOT, Stackctl
from tests.integration.conftest import Copy


@pytest.mark.needs("torch-index")
def test_locks_are_made_from_the_catalog(copy: tuple[Path, Copy]) -> None:
    root, stackctl = copy
    catalog = root / "images" / "catalog.toml"
    catalog.write_text(catalog.read_text().replace("tensorboard==2.21.0", "tensorboard==2.20.0"))
    assert stackctl("lock", "--check").returncode == 2

    done = stackctl("lock", "pytorch", "--variant", "cpu")
    assert done.returncode == 0, done.stderr
    pins = {pin.name: pin for pin in lockfile.parse((root / "images/locks/pytorch-cpu.txt").read_text())}
    assert pins["tensorboard"].version == "2.20.0"
    assert all(pin.hashes for pin in pins.values())
    assert "torch" not in pins
    (torch,) = lockfile.parse((root / "images/locks/pytorch-cpu.framework.txt").read_text())
    assert (torch.name, torch.version) == ("torch", "2.13.0+cpu")
    assert "://" not in (root / "images/locks/pytorch-cpu.txt").read_text(), "a lock holds no address"

    assert stackctl("render", "--check").returncode == 1, "the lock's digest is a label of the image"
    assert stackctl("render").returncode == 0
    assert stackctl("render", "--check").returncode == 0


PLAIN = '"tensorboard==2.21.0"'


@pytest.mark.needs("torch-index")
@pytest.mark.parametrize(
    ("old", "new", "variant", "sentence", "rows"),
    [
        (
            '["torch==2.13.0", "torchvision==0.28.0"]',
            '["torch==2.10.0", "tensorflow[and-cuda]==2.21.0"]',
            "cuda",
            "no version of nvidia-nccl-cu12 fits: ",
            ["torch==2.10.0", "tensorflow[and-cuda]==2.21.0"],
        ),
        (
            PLAIN,
            f'{PLAIN}, "numpy==1.20.0"',
            "cpu",
            "no version of numpy fits: ",
            ["matplotlib==3.11.2", "numpy==1.20.0"],
        ),
        (
            PLAIN,
            f'{PLAIN}, "huggingface-hub==0.20.0"',
            "cpu",
            "no version of huggingface-hub fits: ",
            ["accelerate==1.15.0", "huggingface-hub==0.20.0"],
        ),
        (
            PLAIN,
            '"tensorboard==99.0.0"',
            "cpu",
            "the package index has no tensorboard==99.0.0",
            ["tensorboard==99.0.0"],
        ),
    ],
)
def test_a_conflict_is_one_sentence_and_lines_of_the_catalog(
    copy: tuple[Path, Copy], old: str, new: str, variant: str, sentence: str, rows: list[str]
) -> None:
    root, stackctl = copy
    catalog = root / "images" / "catalog.toml"
    # The first image of the catalog is pytorch; its variants must agree on the framework.
    text = catalog.read_text().replace(old, new, 1)
    catalog.write_text(text.replace("torch==2.13.0+cpu", "torch==2.10.0+cpu", 1) if variant == "cuda" else text)
    before = {path.name: path.read_bytes() for path in (root / "images/locks").iterdir()}
    failed = stackctl("lock", "pytorch", "--variant", variant)
    assert failed.returncode == 1, failed.stderr
    first, *others = failed.stderr.partition("error: ")[2].splitlines()
    assert first.startswith(f"pytorch ({variant}): {sentence}")
    numbered = catalog.read_text().splitlines()
    for row in rows:
        assert row in first or "the catalog wants" in first
        (shown,) = [line for line in others if line.endswith(f": {row}")]
        number = int(shown.split(":")[1])
        assert f'"{row}"' in numbered[number - 1]
    assert "Because" not in failed.stderr
    assert "Because" in stackctl("--debug", "lock", "pytorch", "--variant", variant).stderr
    assert {path.name: path.read_bytes() for path in (root / "images/locks").iterdir()} == before


@pytest.mark.needs("index")
def test_two_cuda_majors_in_an_image_are_refused_by_package(copy: tuple[Path, Copy]) -> None:
    root, stackctl = copy
    catalog = root / "images" / "catalog.toml"
    catalog.write_text(catalog.read_text().replace('"torchvision==0.28.0"]', '"nvidia-nccl-cu12==2.32.3"]', 1))
    failed = stackctl("lock", "pytorch", "--variant", "cuda")
    assert failed.returncode == 2
    assert "images.pytorch.variants.cuda: one image has one CUDA major, but cuda-" in failed.stderr
    assert "nvidia-nccl-cu12==2.32.3 is for CUDA 12" in failed.stderr


@pytest.mark.needs("torch-index")
def test_a_lock_again_changes_only_what_was_asked_for(copy: tuple[Path, Copy]) -> None:
    root, stackctl = copy
    folder = root / "images" / "locks"
    before = {path.name: path.read_text() for path in folder.iterdir()}
    again = stackctl("lock", "pytorch")
    assert again.returncode == 0, again.stderr
    if "note: pytorch-cpu: without torchvision" in again.stderr:
        assert again.stdout == "pytorch-cpu: as it was\npytorch-cuda: as it was\n"
        assert {path.name: path.read_text() for path in folder.iterdir()} == before
    else:  # the framework's own index answers here, which it did not where the committed lock was made
        assert "pytorch-cpu:\n  torchvision 0.28.0+cpu added\n" in again.stdout

    catalog = root / "images" / "catalog.toml"
    catalog.write_text(catalog.read_text().replace("tensorboard==2.21.0", "tensorboard==2.20.0"))
    changed = stackctl("lock", "pytorch")
    assert "  tensorboard 2.21.0 -> 2.20.0\n" in changed.stdout
    assert " torch " not in changed.stdout
    assert stackctl("lock", "pytorch", "--check").returncode == 0


VISION = {
    "torchvision/__init__.py": "",
    "torchvision-0.28.0+cpu.dist-info/METADATA": "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0+cpu\n"
    "Requires-Dist: numpy\nRequires-Dist: pillow>=5.3.0\nRequires-Dist: torch==2.13.0\n",
    "torchvision-0.28.0+cpu.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "torchvision-0.28.0+cpu.dist-info/RECORD": "",
}
TORCH = {
    "torch/__init__.py": "",
    "torch-2.13.0+cpu.dist-info/METADATA": "Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0+cpu\n",
    "torch-2.13.0+cpu.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "torch-2.13.0+cpu.dist-info/RECORD": "",
}


def wheel(path: Path, files: dict[str, str]) -> None:
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)


@pytest.mark.needs("index")
def test_torchvision_for_cpus_is_locked_as_soon_as_it_is_offered(copy: tuple[Path, Copy]) -> None:
    """The package index has none that works beside a CPU torch; a wheelhouse stands in for the framework's index."""
    root, stackctl = copy
    house, lock = root / "house", root / "images" / "locks" / "pytorch-cpu.framework.txt"
    wheel(house / "torch-2.13.0+cpu-py3-none-any.whl", TORCH)
    (root / "images" / "locks" / "pytorch-cpu.sums").unlink()  # with it goes the hash of PyTorch's own wheel
    words, env = ("lock", "pytorch", "--variant", "cpu"), {"STACK_WHEELHOUSE": str(house)}
    without = stackctl(*words, env=env)
    assert without.returncode == 0, without.stderr
    said = "note: pytorch-cpu: without torchvision==0.28.0+cpu"
    assert f"{said}: the package index has no torchvision==0.28.0+cpu\n" in without.stderr
    assert [pin.name for pin in lockfile.parse(lock.read_text())] == ["torch"]
    checked = stackctl("lock", "pytorch", "--check")
    assert checked.returncode == 0, checked.stderr
    assert f"{said}, which the framework's index did not offer when it was locked" in checked.stderr

    wheel(house / "torchvision-0.28.0+cpu-py3-none-any.whl", VISION)
    done = stackctl(*words, env=env)
    assert done.returncode == 0, done.stderr
    assert "  torchvision 0.28.0+cpu added\n" in done.stdout
    pins = {pin.name: pin for pin in lockfile.parse(lock.read_text())}
    assert list(pins) == ["torch", "torchvision"]
    assert pins["torchvision"].hashes
    assert "without" not in done.stderr
    assert "torchvision" not in stackctl("lock", "pytorch", "--check").stderr


def test_the_docs_say_which_torchvision_is_locked() -> None:
    from stackctl.images import catalog, lock

    rows = catalog.targets(catalog.load(ROOT / "images" / "catalog.toml"))
    without = {target.variant_name for target in rows if lock.lacking(target, ROOT / "images")}
    told = next(
        line for line in (ROOT / "docs" / "images.md").read_text().splitlines() if "committed locks of the CPU" in line
    )
    assert ("are without it" in told) == bool(without) == (without == {"cpu"})


@pytest.mark.needs("torch-index")
def test_upgrade_takes_what_is_new_and_names_newer_releases(copy: tuple[Path, Copy]) -> None:
    root, stackctl = copy
    catalog = root / "images" / "catalog.toml"
    # As if the lock had been made when this release was the newest.
    catalog.write_text(catalog.read_text().replace('"tensorboard==2.21.0"', '"tensorboard==2.20.0", "packaging==25.0"'))
    assert stackctl("lock", "pytorch", "--variant", "cpu").returncode == 0
    catalog.write_text(catalog.read_text().replace(', "packaging==25.0"', ""))
    kept = stackctl("lock", "pytorch", "--variant", "cpu")
    assert kept.returncode == 0
    assert "packaging" not in kept.stdout
    upgraded = stackctl("lock", "pytorch", "--upgrade")
    assert "  packaging 25.0 -> " in upgraded.stdout
    number = next(n for n, line in enumerate(catalog.read_text().splitlines(), 1) if "tensorboard" in line)
    assert "tensorboard 2.21.0 is out; " in upgraded.stderr
    assert f"images/catalog.toml:{number} asks for 2.20.0" in upgraded.stderr
    assert stackctl("lock", "pytorch", "--upgrade", "--variant", "cpu").returncode == 2


def test_a_lock_edited_by_hand_is_named_by_file_and_line(copy: tuple[Path, Copy]) -> None:
    root, stackctl = copy
    lock = root / "images/locks/pytorch-cpu.txt"
    pin = next(pin for pin in lockfile.parse(lock.read_text()) if pin.name == "numpy")
    line = lockfile.line_of(lock.read_text(), "numpy")
    for new, said in (
        (pin.text.replace(pin.version, "1.0"), f"the resolver wrote numpy=={pin.version}, and the lock has 1.0"),
        (pin.text.replace(pin.hashes[0], "sha256:" + "0" * 64), f"other hashes for numpy=={pin.version}"),
    ):
        text = lock.read_text()
        lock.write_text(text.replace(pin.text, new))
        refused = stackctl("lock", "--check")
        assert refused.returncode == 2
        assert f"{lock}:{line}: " in refused.stderr
        assert said in refused.stderr
        assert "run `stackctl lock pytorch --variant cpu`" in refused.stderr
        assert stackctl("build", "pytorch", "--variant", "cpu").stderr == refused.stderr
        lock.write_text(text)


@pytest.mark.needs("torch-index")
def test_locking_again_heals_an_edited_lock(copy: tuple[Path, Copy]) -> None:
    root, stackctl = copy
    lock = root / "images/locks/pytorch-cpu.txt"
    before = lock.read_text()
    pin = next(pin for pin in lockfile.parse(before) if pin.name == "numpy")
    lock.write_text(before.replace(pin.text, pin.text.replace(pin.hashes[0], "sha256:" + "0" * 64)))
    assert stackctl("lock", "pytorch", "--variant", "cpu").returncode == 0
    healed = next(pin for pin in lockfile.parse(lock.read_text()) if pin.name == "numpy")
    assert healed.version == pin.version
    assert pin.hashes[0] in healed.hashes
    assert "sha256:" + "0" * 64 not in healed.hashes


NO_INDEX = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0", "UV_NO_CACHE": "1"}


def test_called_by_path_stackctl_finds_the_uv_beside_it(stackctl: Stackctl, tmp_path: Path) -> None:
    failed = stackctl("lock", "tensorflow", "--variant", "cuda", env={**NO_INDEX, "PATH": str(tmp_path)})
    assert failed.returncode == 3
    assert "tensorflow (cuda): the package index does not answer: " in failed.stderr


def test_an_index_that_does_not_answer_is_no_conflict(copy: tuple[Path, Copy]) -> None:
    _, stackctl = copy
    failed = stackctl("lock", "tensorflow", "--variant", "cuda", env=NO_INDEX)
    assert failed.returncode == 3
    assert "tensorflow (cuda): the package index does not answer: " in failed.stderr
    assert "docs/settings.md" in failed.stderr


@pytest.mark.needs("index")
@pytest.mark.parametrize(
    ("torch", "start"), [("2.13.0", "one image has one CUDA"), ("2.10.0", "no version of nvidia-nccl")]
)
def test_why_horovod_has_an_image_a_framework_is_as_the_docs_say(
    copy: tuple[Path, Copy], torch: str, start: str
) -> None:
    root, stackctl = copy
    catalog = root / "images" / "catalog.toml"
    alone = '["tensorflow[and-cuda]==2.21.0"]'
    before, row, after = catalog.read_text().rpartition(alone)
    assert "[images.horovod-tensorflow.variants.cuda]" in before[-80:]
    catalog.write_text(f'{before}{row.removesuffix("]")}, "torch=={torch}"]{after}')
    done = stackctl("lock", "horovod-tensorflow", "--variant", "cuda")
    assert done.returncode in (1, 2), done.stdout
    said = next(line for line in done.stderr.splitlines() if line.startswith("error:"))
    assert f"> {said[said.index(start) :]}\n" in (ROOT / "docs" / "horovod.md").read_text()


@pytest.fixture
def refusing() -> Iterator[tuple[str, list[str]]]:
    """A package index that wants a password: its address, and the packages that it is asked for."""
    asked: list[str] = []

    class Index(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/simple", asked
        server.shutdown()


@pytest.mark.needs("torch-index")  # for uv
@pytest.mark.parametrize("name", ["PIP_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX"])
def test_the_index_of_the_settings_is_asked_and_no_other(
    name: str, copy: tuple[Path, Copy], refusing: tuple[str, list[str]]
) -> None:
    _, stackctl = copy
    address, asked = refusing
    failed = stackctl("lock", "tensorflow", "--variant", "cpu", env={name: address})
    assert failed.returncode == 3
    assert "tensorflow (cpu): a package index refuses: 401 Unauthorized" in failed.stderr
    assert {path.split("/")[1] for path in asked} == {"simple"}, asked


@pytest.mark.needs("torch-index")
def test_a_package_without_a_wheel_is_refused(copy: tuple[Path, Copy]) -> None:
    """Compiling it in a build would fetch setuptools and whatever else it names, without a hash."""
    root, stackctl = copy
    catalog = root / "images" / "catalog.toml"
    catalog.write_text(catalog.read_text().replace('sources = ["promise"]\n', ""))
    before = {path: path.read_bytes() for path in (root / "images" / "locks").iterdir()}
    refused = stackctl("lock", "tensorflow", "--variant", "cpu")
    assert refused.returncode == 1
    assert "promise 2.3 exists only as a source archive" in refused.stderr
    assert {path: path.read_bytes() for path in (root / "images" / "locks").iterdir()} == before
