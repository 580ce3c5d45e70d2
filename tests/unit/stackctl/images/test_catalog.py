from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stackctl import assets
from stackctl.errors import InvalidInput
from stackctl.images import catalog

VALID = """
schema = 1
[bases.bookworm]
image = "debian:bookworm-slim"
python = "3.11"
wheel_platform = "x86_64-manylinux_2_28"
[tools]
uv = "0.13.9"
[devel]
apt = ["gdb"]
packages = ["ipython==9.18.1"]
[families.torch]
template = "pytorch.dockerfile.j2"
apt = ["python3"]
packages = ["transformers==5.23.0"]
framework_layer = ["torch"]
[images.pytorch]
summary = "PyTorch"
framework = "torch"
base = "bookworm"
[images.pytorch.variants.cpu]
framework_packages = ["torch==2.13.0+cpu"]
budget_gb = 1.8
"""


def parse(text: str) -> catalog.Catalog:
    return catalog.parse(tomllib.loads(text), "catalog.toml")


@pytest.mark.parametrize("prefix", ["", "stack-", "registry.example/team/stack-", "Registry.example:5000/stack-", "a/"])
def test_what_an_image_s_name_may_start_with(prefix: str) -> None:
    assert catalog.prefix_of({"STACK_IMAGE_PREFIX": prefix}) == prefix


@pytest.mark.parametrize("prefix", ["Mine-", "https://registry.example/stack-", "a b/", "registry.example/Team/", "/a"])
def test_what_it_may_not(prefix: str) -> None:
    with pytest.raises(InvalidInput, match=f"^STACK_IMAGE_PREFIX={prefix}: no image's name starts so"):
        catalog.prefix_of({"STACK_IMAGE_PREFIX": prefix})


def test_the_catalog_of_the_stack_is_valid() -> None:
    rows = catalog.load()
    assert {target.key for target in catalog.targets(rows)} >= {
        "pytorch-cpu", "pytorch-cuda", "tensorflow-cpu", "horovod-pytorch-cpu", "horovod-tensorflow-cpu",
    }  # fmt: skip


def test_a_target_names_its_files_and_tag() -> None:
    target = catalog.targets(parse(VALID))[0]
    assert target.tag == "stack-pytorch:cpu"
    assert target.dockerfile == "pytorch-cpu.Dockerfile"
    assert target.framework_package == "torch"


def test_the_image_for_development_has_a_name_of_its_own() -> None:
    target = msgspec.structs.replace(catalog.targets(parse(VALID))[0], development=True)
    assert (target.tag, target.build_key) == ("stack-pytorch:cpu-devel", "pytorch-cpu-devel")


def test_mpi_is_in_the_image_that_asks_for_it() -> None:
    apt = {name: set(catalog.targets(catalog.load(), name, "cpu")[0].apt) for name in (
        "pytorch", "horovod-pytorch", "horovod-pytorch-mpi")}  # fmt: skip
    assert apt["horovod-pytorch-mpi"] - apt["horovod-pytorch"] == {"libopenmpi3", "openmpi-bin"}
    assert apt["horovod-pytorch"] == apt["pytorch"]


def test_an_image_says_what_its_ranks_expect_of_the_launcher() -> None:
    launchers = {name: image.launcher for name, image in catalog.load().images.items()}
    assert launchers == {
        "pytorch": "torch", "tensorflow": "tensorflow", "horovod-pytorch": "horovod", "horovod-tensorflow": "horovod",
        "serve": "torch", "pytorch-next": "torch", "pytorch-trixie": "torch", "horovod-pytorch-mpi": "horovod",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("schema = 1", "schema = 7", ["catalog.toml: schema", "must be 1, not 7"]),
        ("schema = 1", "", ["catalog.toml: schema", "must be 1, not None"]),
        ('framework = "torch"', "", ["images.pytorch", "missing key 'framework'"]),
        ('framework = "torch"', 'framwork = "torch"', ["images.pytorch.framwork", "did you mean 'framework'?"]),
        ('base = "bookworm"', 'base = "bokworm"', ["images.pytorch.base", "did you mean 'bookworm'?"]),
        ('python = "3.11"', "python = 3.11", ["bases.bookworm.python", "Expected 'str', got 'float'"]),
        ('apt = ["python3"]', 'apt = ["python3", 7]', ["families.torch.apt[1]", "Expected 'str', got 'int'"]),
        ("[images.pytorch.variants.cpu]", "[images.pytorch.variants.cpu]\nspeed = 1", ["variants.cpu.speed"]),
        ("framework_packages = ", "cuda = ", ["images.pytorch.variants.cpu"]),
        (
            'framework_packages = ["torch==2.13.0+cpu"]',
            "framework_packages = []",
            ["variants.cpu.framework_packages", "must name the framework's package first"],
        ),
        ('base = "bookworm"', 'base = "bookworm"\nhorovod = true', ["images.pytorch.horovod", "no table [horovod]"]),
        ('base = "bookworm"', 'base = "bookworm"\nmpi = true', ["images.pytorch.mpi", "has `horovod = true` as well"]),
        ('base = "bookworm"', 'base = "bookworm"\nhorovod = "0.28.1"', ["images.pytorch.horovod", "Expected 'bool'"]),
        (
            "[bases.bookworm]",
            '[horovod]\nversion = "0.28.1"\napt = []\n[bases.bookworm]',
            ["horovod", "missing key 'packages'"],
        ),
        ("[bases.bookworm]", '[horovod]\nrelease = "0.28.1"\n[bases.bookworm]', ["catalog.toml: horovod.release"]),
        (
            'packages = ["transformers==5.23.0"]',
            'packages = ["numpy==2.4.6", "transformers>=5"]',
            ["families.torch.packages[1]", "'transformers>=5' does not name one version"],
        ),
        (
            'packages = ["transformers==5.23.0"]',
            'packages = ["transformers==5.23.0", "Transformers==5.22.0"]',
            ["families.torch.packages[1]", "conflicts with 'transformers==5.23.0'"],
        ),
        (
            'packages = ["transformers==5.23.0"]',
            'packages = ["torch==2.12.0"]',
            ["families.torch.packages[0]", "'torch==2.12.0' conflicts with 'torch==2.13.0+cpu'"],
        ),
        (
            "budget_gb = 1.8",
            'budget_gb = 1.8\n[images.pytorch.variants.cuda]\nframework_packages = ["torch==2.15.0"]\nbudget_gb = 5.8',
            ["variants.cuda.framework_packages[0]", "2.15.0 is not the framework version of the other variant, 2.13.0"],
        ),
        ('apt = ["python3"]', 'apt = ["python3; rm -rf /"]', ["families.torch.apt[0]", "a Debian package's name"]),
        ('apt = ["python3"]', 'apt = ["python3\\nRUN x"]', ["families.torch.apt[0]", "a Debian package's name"]),
        ('apt = ["gdb"]', 'apt = ["$HOME"]', ["catalog.toml: devel.apt[0]", "a Debian package's name"]),
        ('summary = "PyTorch"', "summary = 'Py\"Torch'", ["images.pytorch.summary", "it becomes a label"]),
        ('summary = "PyTorch"', 'summary = "Py\\nTorch"', ["images.pytorch.summary", "one line"]),
        ("[images.pytorch]", "[images.PyTorch]", ["images.PyTorch", "it becomes an image's name"]),
        ("variants.cpu]", 'variants."cpu old"]', ["images.pytorch.variants.cpu old", "it becomes an image's name"]),
        ('framework = "torch"', 'framework = "jax"', ["images.pytorch.framework", "write torch or tensorflow"]),
        ('image = "debian:bookworm-slim"', 'image = "debian slim"', ["bases.bookworm.image", "an image's name"]),
        ('template = "pytorch.', 'template = "../pytorch.', ["families.torch.template", "a file of images/templates"]),
        ("budget_gb", 'index = "ftp://x"\nbudget_gb', ["variants.cpu.index", "an address that starts with https://"]),
        ("budget_gb", 'cuda = "13 "\nbudget_gb', ["variants.cpu.cuda", "a version, such as 13.0"]),
        ("[families.torch]", "[families.jax]", ["catalog.toml: families.jax", "no framework is named 'jax'", "torch"]),
        ("[families.torch]", "[families.horovod]", ["catalog.toml: families.horovod", "no framework is named"]),
        (
            'framework = "torch"',
            'framework = "tensorflow"',
            ["images.pytorch.framework", "there is no table [families.tensorflow]"],
        ),
        ('template = "pytorch.dockerfile.j2"', "", ["families.torch", "missing key 'template'"]),
        ("framework_layer", "framwork_layer", ["families.torch.framwork_layer", "did you mean 'framework_layer'?"]),
        ("[families.torch]", "[families]\ntorch = 3\n[x]", ["catalog.toml"]),
        (
            'base = "bookworm"',
            'base = "bookworm"\npackages = ["torch==2.12.0"]',
            ["images.pytorch.packages[0]", "'torch==2.12.0' conflicts with 'torch==2.13.0+cpu'"],
        ),
        (
            '["torch==2.13.0+cpu"]',
            '["jax==0.9.0"]',
            ["framework_packages[0]", "'jax' is none of the framework's layer, torch"],
        ),
        (
            'layer = ["torch"]',
            'layer = ["troch"]',
            ["framework_packages[0]", "'torch' is none of the framework's layer"],
        ),
        (
            '["torch==2.13.0+cpu"]',
            '["torchvision==0.28.0+cpu", "torch==2.13.0+cpu"]',
            ["variants.cpu.framework_packages", "must name the framework's package first"],
        ),
        ("budget_gb = 1.8", "budget_gb = inf", ["images.pytorch.variants.cpu.budget_gb", "Expected 'float' < 1000000"]),
        ("budget_gb = 1.8", "budget_gb = nan", ["images.pytorch.variants.cpu.budget_gb", "Expected 'float'"]),
        ("budget_gb = 1.8", "budget_gb = -1", ["images.pytorch.variants.cpu.budget_gb", "Expected 'float' > 0"]),
        ("[devel]", "[devle]", ["catalog.toml: devle", "did you mean 'devel'?"]),
        ('apt = ["gdb"]', "", ["catalog.toml: devel", "missing key 'apt'"]),
        ("[tools]", "[tols]", ["catalog.toml: tols", "did you mean 'tools'?"]),
        ("[bases.bookworm]", "[bases]\nbookworm = 3\n[x]", ["catalog.toml"]),
    ],
)
def test_a_bad_catalog_is_refused_by_file_and_key(old: str, new: str, said: list[str]) -> None:
    assert old in VALID
    with pytest.raises(InvalidInput) as error:
        parse(VALID.replace(old, new, 1))
    for words in ["catalog.toml", *said]:
        assert words in str(error.value)


def test_a_cuda_without_a_toolkit_is_refused() -> None:
    document = tomllib.loads((assets.images_dir() / "catalog.toml").read_text())
    document["images"]["horovod-pytorch"]["variants"]["cuda"]["cuda"] = "14.1"
    with pytest.raises(InvalidInput, match=r"horovod-pytorch\.variants\.cuda\.cuda: .*no table \[horovod\.cuda\.14\]"):
        catalog.parse(document, "catalog.toml")


def test_the_template_of_horovod_is_no_template_to_put_it_on() -> None:
    document = tomllib.loads((assets.images_dir() / "catalog.toml").read_text())
    document["images"]["horovod-pytorch"]["template"] = document["horovod"]["template"]
    with pytest.raises(InvalidInput, match=r"catalog\.toml: images\.horovod-pytorch\.template: .* on top of"):
        catalog.parse(document, "catalog.toml")


def test_the_image_that_the_docs_add_has_what_its_family_has() -> None:
    (row,) = re.findall(
        r"```toml\n(.*?)```", (assets.images_dir().parent / "docs" / "images.md").read_text(), re.DOTALL
    )
    rows = parse((assets.images_dir() / "catalog.toml").read_text() + row).images
    assert rows["pytorch-mine"].packages == (*rows["pytorch-next"].packages, "einops==0.8.1")


def test_an_image_without_variants_is_refused() -> None:
    document: dict[str, Any] = tomllib.loads(VALID)
    document["images"]["pytorch"]["variants"] = {}
    with pytest.raises(InvalidInput, match="at least one variant"):
        catalog.parse(document, "catalog.toml")


def test_an_image_adds_to_what_its_family_has() -> None:
    own = 'base = "bookworm"\napt = ["git", "python3"]\npackages = ["Transformers==4.57.0", "einops==0.8.1"]'
    (target,) = catalog.targets(parse(VALID.replace('base = "bookworm"', own)))
    assert target.image.apt == ("python3", "git")
    assert target.requirements == ("torch==2.13.0+cpu", "Transformers==4.57.0", "einops==0.8.1")
    assert (target.template, target.image.framework_layer) == ("pytorch.dockerfile.j2", ("torch",))


def test_an_image_leaves_out_what_its_family_has_and_it_does_not_need() -> None:
    own = 'base = "bookworm"\nwithout = ["transformers"]'
    (target,) = catalog.targets(parse(VALID.replace('base = "bookworm"', own)))
    assert target.requirements == ("torch==2.13.0+cpu",)
    with pytest.raises(InvalidInput, match=r"images\.pytorch\.without\[0\]: \[families\.torch\] has no 'einops'"):
        parse(VALID.replace('base = "bookworm"', own.replace("transformers", "einops")))
    serving = catalog.load().images["serve"]
    assert not serving.compiler
    assert not {"peft", "tensorboard"} & {requirement.split("==")[0] for requirement in serving.packages}


def test_what_a_family_has_stands_in_one_line() -> None:
    text = (assets.images_dir() / "catalog.toml").read_text()
    for name, images in (("transformers", 6), ("tf-keras", 2)):
        asked = [image for image in catalog.load().images.values() if any(name in row for row in image.packages)]
        assert (text.count(f'"{name}=='), len(asked)) == (1, images)


def test_a_template_that_is_not_there_is_refused_by_file_and_key(tmp_path: Path) -> None:
    path = tmp_path / "catalog.toml"
    (tmp_path / "templates").symlink_to(assets.images_dir() / "templates")
    path.write_text(VALID)
    assert catalog.load(path).images["pytorch"].template == "pytorch.dockerfile.j2"
    own = VALID.replace('base = "bookworm"', 'base = "bookworm"\ntemplate = "mine.dockerfile.j2"')
    for text, key in ((VALID.replace("pytorch.d", "pytroch.d"), "families.torch"), (own, "images.pytorch")):
        path.write_text(text)
        with pytest.raises(InvalidInput, match=rf"catalog\.toml: {key}\.template: there is no template '.*'"):
            catalog.load(path)


def test_a_duplicate_is_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text(VALID + "[images.pytorch.variants.cpu]\nframework_packages = []\nbudget_gb = 1.8\n")
    with pytest.raises(InvalidInput, match=r"catalog\.toml: is not valid TOML: .*line"):
        catalog.load(path)


def test_an_absent_catalog_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no such file"):
        catalog.load(tmp_path / "catalog.toml")


def test_unknown_names_come_with_suggestions() -> None:
    rows = catalog.load()
    with pytest.raises(InvalidInput, match="did you mean 'pytorch'"):
        catalog.targets(rows, "pytroch")
    with pytest.raises(InvalidInput, match="did you mean 'cuda'"):
        catalog.targets(rows, "pytorch", "cudaa")


def test_requirements_are_exact() -> None:
    rows = catalog.load()
    for target in catalog.targets(rows):
        compiling = target.horovod.packages if target.horovod else ()
        developing = (*target.devel.packages, *target.variant.devel_packages)
        toolkit = target.toolkit.packages if target.toolkit else ()
        asked = (*target.variant.framework_packages, *target.image.packages, *compiling, *developing, *toolkit)
        for requirement in asked:
            assert "==" in requirement, f"{target.key}: {requirement} is not pinned"


def test_every_template_of_the_catalog_exists() -> None:
    for target in catalog.targets(catalog.load()):
        assert (assets.images_dir() / "templates" / target.template).is_file()
        assert (assets.images_dir() / "templates" / target.image.template).is_file()


def test_source_archives_need_what_makes_wheels_of_them() -> None:
    asking = VALID.replace('framework_layer = ["torch"]', 'framework_layer = ["torch"]\nsources = ["promise"]')
    with pytest.raises(InvalidInput, match=r"the catalog has no table \[wheels\]") as refused:
        parse(asking)
    assert refused.value.where == "catalog.toml: images.pytorch.sources"
    rows = parse(asking + '[wheels]\npackages = ["setuptools==79.0.1"]\n')
    (target,) = catalog.targets(rows)
    assert (target.image.sources, target.wheels.packages) == (("promise",), ("setuptools==79.0.1",))
    with pytest.raises(InvalidInput, match=r"'promise==2\.3' cannot be used here"):
        parse(asking.replace('"promise"', '"promise==2.3"'))
