from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from stackctl import assets, generated
from stackctl.errors import InvalidInput
from stackctl.images import catalog, lock, lock_list, render, wheelhouse
from stackctl.images.lock_list import lock_of, locks_of, pins_of
from stackctl.images.schema import Tools


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A copy of images/ that a test may change."""
    for name in ("templates", "locks", "dockerfiles", "facts"):
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
    template.write_text(template.read_text() + "{% block environment %}{{ target.variant.cuda_version }}{% endblock %}")
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
        lines = text.partition("\n\n# For development")[0].splitlines()
        assert lines.index("USER 1000:1000") < lines.index('ENTRYPOINT ["/usr/bin/tini", "--"]')
        assert lines[-1] == "COPY --link --from=payload /opt/stack /opt/stack", "the payload is the last layer"


def test_a_plain_build_gives_the_runtime_image_and_not_the_one_for_development() -> None:
    for target in catalog.targets(catalog.load()):
        text = render.dockerfiles([target], assets.images_dir())[target.dockerfile]
        devel_lock = lock_of(target, "devel").file
        runtime, _, devel = text.partition(wheelhouse.DEVEL_STAGE)
        assert devel.endswith("\nUSER 1000:1000\n\n# What a plain build makes.\nFROM runtime\n")
        assert devel_lock in devel
        assert devel_lock not in runtime
        assert ("cuda-links" in devel) == (target.variant.cuda.startswith("13.")), target.key


def test_the_image_for_development_has_nothing_twice() -> None:
    for target in catalog.targets(catalog.load()):
        names = [
            {pin.name for pin in pins_of(target, assets.images_dir(), lock.kind)}
            for lock in locks_of(target)
            if lock.installed or lock.kind == "devel"
        ]
        assert len(set.union(*names)) == sum(len(some) for some in names), target.key
        assert {"debugpy", "ipython", "jupyterlab", "py-spy"} <= names[-1], target.key


def test_the_gpu_environment_is_in_the_cuda_image_only() -> None:
    texts = render.dockerfiles(catalog.targets(catalog.load()), assets.images_dir())
    assert 'NVIDIA_REQUIRE_CUDA="cuda>=13.0"' in texts["pytorch-cuda.Dockerfile"]
    assert 'NVIDIA_REQUIRE_CUDA="cuda>=12.0"' in texts["tensorflow-cuda.Dockerfile"]
    for name in ("pytorch-cpu", "tensorflow-cpu", "horovod-pytorch-cpu", "horovod-tensorflow-cpu"):
        assert "NVIDIA" not in texts[f"{name}.Dockerfile"]


@pytest.mark.parametrize("name", ["pytorch", "tensorflow"])
def test_both_variants_hold_the_same_versions_outside_the_framework(name: str) -> None:
    cpu, cuda = catalog.targets(catalog.load(), name)
    folder = assets.images_dir() / "locks"
    assert (
        lock_list.read(folder / lock_of(cpu, "packages").file, cpu).split("\n", 2)[2]
        == (lock_list.read(folder / lock_of(cuda, "packages").file, cuda).split("\n", 2)[2])
    )


@pytest.mark.parametrize("name", ["horovod-pytorch", "horovod-tensorflow"])
def test_the_compilers_stay_in_the_stage_that_compiles_horovod(name: str) -> None:
    (target,) = catalog.targets(catalog.load(), name, "cpu")
    text = render.dockerfiles([target], assets.images_dir())[target.dockerfile]
    framework, builder, runtime = (text.index(f"\nFROM {line}\n") for line in (
        "base AS framework", "framework AS builder", "framework AS runtime"))  # fmt: skip
    assert framework < builder < runtime
    for word in (
        "      make ",
        lock_of(target, "builder").file,
        "images/patches/horovod,",
        "images/patches/horovod-python,",
    ):
        assert builder < text.index(word) < runtime
        assert text.count(word) == 1
    wanted = "PYTORCH" if name == "horovod-pytorch" else "TENSORFLOW"
    assert f"/run/horovod-wheel {wanted} /dist" in text
    assert "from=builder,source=/patched" in text[runtime:]
    tools = {pin.name for pin in pins_of(target, assets.images_dir(), "packages")}
    assert not tools & {"cmake", "horovod"}


def test_the_compiler_of_an_image_is_installed_beside_its_wheels() -> None:
    for target in catalog.targets(catalog.load()):
        text = render.dockerfiles([target], assets.images_dir())[target.dockerfile]
        assert ("\nFROM base AS compiler\n" in text) == bool(target.image.compiler), target.key
        for package in target.image.compiler:
            assert f" {package}\n" in text.replace(" \\\n", "\n").partition("AS compiler")[2].partition("\nFROM")[0]
        # Nothing waits for it: the steps before have no part in it, and BuildKit puts a link's layer on top of any.
        before, copied, _ = text.partition("\nCOPY --link --from=compiler /compiler /\n")
        assert bool(copied) == bool(target.image.compiler)
        assert "from=compiler" not in before


@pytest.mark.parametrize(("name", "cubins"), [
    ("horovod-pytorch", "75,80,86,90,100,120"), ("horovod-tensorflow", "60,70,80,89,90"),
])  # fmt: skip
def test_the_toolkit_is_mounted_where_horovod_is_compiled_and_nowhere_else(name: str, cubins: str) -> None:
    (target,) = catalog.targets(catalog.load(), name, "cuda")
    text = render.dockerfiles([target], assets.images_dir())[target.dockerfile]
    toolkit, builder, runtime = (text.index(f"\nFROM {line}\n") for line in (
        "base AS toolkit", "framework AS builder", "framework AS runtime"))  # fmt: skip
    cuda_root = "/run/cuda-root\n" if name == "horovod-pytorch" else "/run/cuda-root \\"
    assert toolkit < text.index(lock_of(target, "toolkit").file) < text.index(cuda_root) < builder
    assert builder < text.index("from=toolkit,source=/opt/cuda") < runtime
    assert text.count("from=toolkit") == 1
    assert f"HOROVOD_BUILD_CUDA_CC_LIST={cubins} " in text[builder:runtime]


def test_images_with_the_same_framework_share_its_layer() -> None:
    """BuildKit takes a layer from its cache if the lock is the same to the last byte."""
    layers: dict[tuple[object, ...], dict[str, str]] = {}
    for target in catalog.targets(catalog.load()):
        same = (target.base, target.variant.framework_packages, target.variant.leave_out)
        text = lock_list.read(assets.images_dir() / "locks" / lock_of(target, "framework").file, target)
        layers.setdefault(same, {})[target.key] = text
    assert any({"pytorch-cuda", "horovod-pytorch-cuda"} <= texts.keys() for texts in layers.values())
    assert any({"tensorflow-cuda", "horovod-tensorflow-cuda"} <= texts.keys() for texts in layers.values())
    for texts in layers.values():
        assert len(set(texts.values())) == 1, f"lock these again, together: {', '.join(texts)}"


def test_horovod_is_compiled_against_the_versions_that_it_runs_with() -> None:
    for target in catalog.targets(catalog.load()):
        if target.horovod is None:
            continue
        versions = {
            lock.kind: {pin.name: pin.version for pin in pins_of(target, assets.images_dir(), lock.kind)}
            for lock in locks_of(target)
        }
        assert versions["horovod"] == {"horovod": target.horovod.version}
        tools = {requirement.split("==")[0] for requirement in target.horovod.packages}
        builder, runtime = versions["builder"], versions["packages"]
        assert tools <= builder.keys()
        assert {name: runtime.get(name) for name in builder.keys() - tools} == {
            name: version for name, version in builder.items() if name not in tools
        }


def test_labels_name_every_framework_by_its_plain_name() -> None:
    (target,) = catalog.targets(catalog.load(), "horovod-tensorflow", "cpu")
    labels = render.labels(target, assets.images_dir())
    assert labels["io.stackctl.tensorflow"] == "2.21.0"
    assert labels["io.stackctl.horovod"] == "0.28.1"


def test_each_patch_names_its_upstream_and_changes_one_thing() -> None:
    patches = sorted(path for folder in (assets.images_dir() / "patches").iterdir() for path in folder.iterdir())
    assert len(patches) == 5
    for path in patches:
        head, _, _ = path.read_text().partition("\n--- a/")
        assert "Upstream: https://github.com/horovod/horovod/" in head, path.name


def test_a_change_of_a_plain_package_leaves_the_framework_and_horovod_in_the_cache() -> None:
    (target,) = catalog.targets(catalog.load(), "horovod-pytorch", "cpu")
    assert target.horovod is not None
    replace = msgspec.structs.replace
    changed = {
        "a plain package": replace(target, image=replace(target.image, packages=("tensorboard==2.20.0",))),
        "a tool": replace(target, horovod=replace(target.horovod, packages=("cmake==3.30.0",))),
        "the framework": replace(target, variant=replace(target.variant, framework_packages=("torch==2.12.0",))),
    }
    stale = {
        what: {new.file.split("-cpu.")[1] for old, new in zip(locks_of(target), locks_of(other), strict=True)
               if lock.fingerprint(other, new) != lock.fingerprint(target, old) and new.kind != "devel"}
        for what, other in changed.items()
    }  # fmt: skip
    assert stale == {
        "a plain package": {"txt"},
        "a tool": {"horovod.txt", "builder.txt"},
        "the framework": {"framework.txt", "txt", "horovod.txt", "builder.txt"},
    }


def test_an_image_has_libraries_of_one_cuda_major_only() -> None:
    for target in catalog.targets(catalog.load()):
        kinds = [lock.kind for lock in locks_of(target)]
        names = {pin.name for kind in kinds for pin in pins_of(target, assets.images_dir(), kind)}
        old = {name for name in names if name.endswith("-cu12")}
        if not target.variant.cuda:
            assert not any(name.startswith("nvidia-") for name in names), target.key
        elif target.variant.cuda.startswith("12."):
            assert old == {name for name in names if name.startswith("nvidia-")}, target.key
        else:
            assert not old, target.key


def test_a_row_names_the_cuda_of_its_lock_and_the_oldest_driver_for_it() -> None:
    for target in catalog.targets(catalog.load()):
        pins = pins_of(target, assets.images_dir(), "framework")
        runtime = [pin.version for pin in pins if pin.name in ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12")]
        assert [".".join(version.split(".")[:2]) for version in runtime] == (
            [target.variant.cuda] if target.variant.cuda else []
        ), target.key
        # CUDA Toolkit release notes, table of minor version compatibility.
        oldest = {"": "", "12": "525", "13": "580"}
        assert target.variant.minimum_driver == oldest[target.variant.cuda.split(".")[0]], target.key
        assert bool(target.variant.gpu_architectures) == bool(target.variant.cuda), target.key


def test_a_lock_of_other_tools_is_refused(images: Path) -> None:
    tools = catalog.load().tools
    lock.check_tools(tools, images)
    with pytest.raises(InvalidInput, match=r"tools\.txt"):
        lock.check_tools(Tools(uv="0.0.1"), images)
    path = images / "locks" / "tools.txt"
    path.write_text(path.read_text().replace("--hash=sha256:", "--hash=sha256:0", 1))
    with pytest.raises(InvalidInput, match=r"tools\.txt:2: the resolver wrote other hashes for uv=="):
        lock.check_tools(tools, images)
    (images / "locks" / "tools.txt").unlink()
    with pytest.raises(InvalidInput, match=r"tools\.txt"):
        lock.check_tools(tools, images)


def test_a_lock_older_than_the_catalog_is_refused(images: Path) -> None:
    text = (images / "catalog.toml").read_text()
    (images / "catalog.toml").write_text(text.replace("tensorboard==2.21.0", "tensorboard==2.20.0"))
    target = catalog.targets(catalog.load(images / "catalog.toml"), "pytorch", "cpu")[0]
    with pytest.raises(InvalidInput, match="stackctl lock pytorch --variant cpu"):
        lock.check(target, images)


@pytest.mark.parametrize(
    ("old", "new", "file"),
    [
        ('"torchvision", "triton"', '"torchvision"', "pytorch-cuda.framework.txt"),
        ('"torchvision", "triton"', '"torchvision", "triton", "numpy"', "pytorch-cuda.txt"),
    ],
)
def test_a_lock_of_another_framework_layer_than_the_catalogs_is_refused(
    old: str, new: str, file: str, images: Path
) -> None:
    text = (images / "catalog.toml").read_text()
    assert old in text
    (images / "catalog.toml").write_text(text.replace(old, new))
    target = catalog.targets(catalog.load(images / "catalog.toml"), "pytorch", "cuda")[0]
    with pytest.raises(InvalidInput, match="against framework_layer of the catalog") as error:
        lock.check(target, images)
    assert f"/{file}:" in error.value.where


def test_a_lock_without_its_framework_is_refused(images: Path) -> None:
    (images / "locks" / "pytorch-cpu.framework.txt").write_text("")
    with pytest.raises(InvalidInput, match="does not hold torch"):
        render.dockerfiles(catalog.targets(catalog.load(), "pytorch", "cpu"), images)
