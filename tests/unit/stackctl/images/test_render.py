from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stackctl import assets, generated
from stackctl.errors import InvalidInput
from stackctl.images import catalog, lock, render


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A copy of images/ that a test may change."""
    for name in ("templates", "locks", "dockerfiles"):
        shutil.copytree(assets.images_dir() / name, tmp_path / "images" / name)
    shutil.copy(assets.images_dir() / "catalog.toml", tmp_path / "images")
    return tmp_path / "images"


def test_committed_files_are_what_would_be_written() -> None:
    root = assets.images_dir().parent
    assert generated.stale(generated.files(assets.images_dir()), root) == []


def test_an_edited_an_absent_and_a_leftover_file_are_stale(images: Path) -> None:
    made = generated.files(images)
    for name in made:
        generated.write(name, made, images.parent)
    assert generated.stale(made, images.parent) == []
    (images / "dockerfiles" / "pytorch-cpu.Dockerfile").write_text("FROM scratch\n")
    (images / "dockerfiles" / "pytorch-cuda.Dockerfile").unlink()
    (images / "dockerfiles" / "old-cpu.Dockerfile").write_text("FROM scratch\n")
    stale = generated.stale(made, images.parent)
    assert stale == [f"images/dockerfiles/{name}.Dockerfile" for name in ("old-cpu", "pytorch-cpu", "pytorch-cuda")]
    for name in stale:
        generated.write(name, made, images.parent)
    assert generated.stale(made, images.parent) == []


def test_a_template_error_names_the_file(images: Path) -> None:
    template = images / "templates" / "pytorch.dockerfile.j2"
    template.write_text(template.read_text().replace("target.variant.cuda", "target.variant.cuda_version"))
    with pytest.raises(InvalidInput, match=r"pytorch\.dockerfile\.j2: .*has no attribute 'cuda_version'"):
        render.dockerfiles(catalog.targets(catalog.load()), images)
    template.write_text("{% block x %}")
    with pytest.raises(InvalidInput, match=r"pytorch\.dockerfile\.j2:1"):
        render.dockerfiles(catalog.targets(catalog.load()), images)


def test_a_missing_lock_says_how_to_make_it(images: Path) -> None:
    (images / "locks" / "pytorch-cpu.txt").unlink()
    with pytest.raises(InvalidInput, match="stackctl lock pytorch"):
        render.dockerfiles(catalog.targets(catalog.load()), images)


def test_no_dockerfile_fetches_a_frontend_or_runs_as_root() -> None:
    for text in render.dockerfiles(catalog.targets(catalog.load()), assets.images_dir()).values():
        assert "# syntax=" not in text
        lines = text.splitlines()
        assert lines.index("USER 1000:1000") < lines.index('ENTRYPOINT ["/usr/bin/tini", "--"]')
        assert lines[-1] == "COPY --link --from=payload /opt/stack /opt/stack", "the payload is the last layer"


def test_the_gpu_environment_is_in_the_cuda_image_only() -> None:
    texts = render.dockerfiles(catalog.targets(catalog.load()), assets.images_dir())
    assert 'NVIDIA_REQUIRE_CUDA="cuda>=13.0"' in texts["pytorch-cuda.Dockerfile"]
    assert "NVIDIA" not in texts["pytorch-cpu.Dockerfile"]


def test_both_variants_hold_the_same_versions_outside_the_framework() -> None:
    cpu, cuda = catalog.targets(catalog.load(), "pytorch")
    folder = assets.images_dir() / "locks"
    assert (
        render.read_lock(folder / cpu.packages_lock, cpu).split("\n", 2)[2]
        == (render.read_lock(folder / cuda.packages_lock, cuda).split("\n", 2)[2])
    )


def test_a_lock_older_than_the_catalog_is_refused(images: Path) -> None:
    text = (images / "catalog.toml").read_text()
    (images / "catalog.toml").write_text(text.replace("tensorboard==2.21.0", "tensorboard==2.20.0"))
    target = catalog.targets(catalog.load(images / "catalog.toml"), "pytorch", "cpu")[0]
    with pytest.raises(InvalidInput, match="stackctl lock pytorch --variant cpu"):
        lock.check(target, images)
