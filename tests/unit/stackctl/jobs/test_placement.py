from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stackctl.errors import InvalidInput
from stackctl.jobs import job as jobs
from stackctl.jobs import profiles, quantity
from stackctl.jobs.placement import Volume, place


def placed(name: str = "a", **given: Any) -> Any:
    job = jobs.make(name=name, workload="gpt", env={"MINE": "1"})
    return place(job, **{"namespace": "team", "profile": profiles.load("generic"), "image": "i", **given})


@pytest.mark.parametrize("name", profiles.names())
def test_of_the_stacks_own_profiles_pods_without_gpus_need_nothing(name: str) -> None:
    profile = profiles.load(name)
    assert placed(profile=profile).profile == profiles.Profile(summary=profile.summary, gpu=profile.gpu)


PROFILE = """\
summary = "ours"
fabric = "rdma"
selector = { pool = "training" }
tolerations = [{ key = "team", operator = "Exists" }]
annotations = { owner = "research" }
env = { HTTPS_PROXY = "http://proxy:3128", LEVEL = "1" }

[with_gpus]
selector = { gpu = "h100" }
tolerations = [{ key = "nvidia.com/gpu", operator = "Exists" }, { key = "team", operator = "Exists" }]
env = { LEVEL = "2" }
runtime_class = "nvidia"
"""


def test_a_profile_holds_for_all_pods_and_a_part_of_it_for_those_with_gpus(tmp_path: Path) -> None:
    path = tmp_path / "ours.toml"
    path.write_text(PROFILE)
    profile = profiles.load(str(path))
    on_cpus = placed(profile=profile).profile
    assert (on_cpus.selector, on_cpus.annotations) == ({"pool": "training"}, {"owner": "research"})
    assert [row.key for row in on_cpus.tolerations] == ["team"]
    assert on_cpus.env == {"HTTPS_PROXY": "http://proxy:3128", "LEVEL": "1"}
    assert (on_cpus.fabric, on_cpus.runtime_class) == ("any", "")
    job = jobs.make(name="a", workload="gpt", gpus=8)
    on_gpus = place(job, namespace="team", profile=profile, image="i").profile
    assert on_gpus.selector == {"pool": "training", "gpu": "h100"}
    assert [row.key for row in on_gpus.tolerations] == ["team", "nvidia.com/gpu"], "each once"
    assert on_gpus.env == {"HTTPS_PROXY": "http://proxy:3128", "LEVEL": "2"}
    assert (on_gpus.fabric, on_gpus.runtime_class) == ("rdma", "nvidia")


def test_volumes() -> None:
    rows = placed(volumes=["out", "data:/data/x/:ro", "scratch:/scratch"]).volumes
    assert rows == (Volume("out", "/out"), Volume("data", "/data/x", True), Volume("scratch", "/scratch"))
    assert placed(volumes=["out"]).claim
    assert not placed(volumes=["data:/data"]).claim


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "1a"}, "--name 1a: on Kubernetes a run's name starts with a letter"),
        ({"namespace": "Team"}, "--namespace Team"),
        ({"namespace": "a" * 64}, "63 at most"),
        ({"queue": "q" * 64}, "--queue"),
        ({"priority": "High!"}, "--priority High!"),
        ({"retries": -1}, "--retries -1: must be from 0 to 100"),
        ({"image": ""}, "--image ''"),
        ({"image": "a b"}, "is not an image's name"),
        ({"cpu": "many"}, "--cpu many: is not an amount above zero"),
        ({"cpu": "0"}, "--cpu 0"),
        ({"cpu_limit": "few"}, "--cpu-limit few: is not an amount above zero"),
        ({"cpu": "2", "cpu_limit": "1500m"}, "--cpu 2 --cpu-limit 1500m: asks for more than the limit allows"),
        ({"ephemeral_storage": "100 GB"}, "--ephemeral-storage 100 GB: is not an amount above zero"),
        ({"memory": "64 Gi"}, "write it as in 64Gi"),
        ({"shm": "8Gi", "memory": "4Gi"}, "--shm 8Gi --memory 4Gi"),
        ({"volumes": ["data:"]}, "must be claim[:path][:ro]"),
        ({"volumes": ["data:/a:/b"]}, "must be claim[:path][:ro]"),
        ({"volumes": ["data:relative"]}, "the path must be absolute"),
        ({"volumes": ["data:/a/../etc"]}, "the path must be absolute"),
        ({"volumes": ["data:ro"]}, "give another path, or leave out :ro"),
        ({"volumes": ["Data:/data"]}, "a claim's name"),
        ({"volumes": ["data:/dev/shm"]}, "/dev/shm has a use already"),
        ({"volumes": ["data:/"]}, "/ has a use already"),
        ({"volumes": ["data:/out/x"]}, "/out/x has a use already"),
        ({"volumes": ["code:/workspace"], "code": "c" * 64}, "/workspace has a use already"),
        ({"volumes": ["a:/data", "b:/data"]}, "--volume b:/data: clashes with a at /data"),
        ({"volumes": ["a:/data", "b:/data/x"]}, "clashes with a at /data"),
        ({"secret_env": ["KEY=abc"]}, "--secret-env KEY=…: must be NAME=secret:key, or NAME"),
        ({"secret_env": ["KEY", "KEY"]}, "KEY is set twice"),
        ({"secret_env": ["MINE"]}, "MINE is set twice"),
        ({"secret_env": ["1KEY=secret:key"]}, "is no name"),
        ({"secret_env": ["STACK_TOKEN=secret:key"]}, "the launcher's own"),
        ({"secret_env": ["MINE=secret:key"]}, "MINE is set twice"),
        ({"secret_env": ["KEY=secret:a", "KEY=secret:b"]}, "KEY is set twice"),
    ],
)
def test_bad_input_is_one_clear_error(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput) as error:
        placed(**given)
    assert said in str(error.value)


def test_code_on_a_volume() -> None:
    assert placed(volumes=["code:/workspace"]).volumes == (Volume("code", "/workspace"),)


@pytest.mark.parametrize(
    ("text", "value"), [("8", 8), ("500m", 0.5), ("64Gi", 64 * 2**30), ("1.5M", 1.5e6), ("1e3", 1000), (".5", 0.5)]
)
def test_quantities(text: str, value: float) -> None:
    assert quantity.value(text) == value


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "-1", "1Gb", "1e", "ten"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match=r"^"):
        quantity.value(text)


def test_amounts_for_people() -> None:
    assert [quantity.show(amount) for amount in (64 * 2**30, 3.0, 0.5, 1536)] == ["64Gi", "3", "0.5", "1.5Ki"]


def test_every_profile_says_what_it_is_for() -> None:
    assert {"aks", "eks", "generic", "gke"} <= set(profiles.names())
    for name in profiles.names():
        assert profiles.load(name).summary


def test_a_profile_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('summary = "mine"\nselector = { pool = "gpu" }\n')
    assert profiles.load(str(path)).selector == {"pool": "gpu"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('summary = "x"\nselectors = {}\n', "`selectors`"),
        ('summary = "x"\ntolerations = [{ operator = "Exists" }]\n', "`key`"),
        ("summary = \n", "is not a profile"),
        (None, "there is no such file"),
    ],
)
def test_a_wrong_profile_is_one_clear_error(text: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidInput) as error:
        profiles.load(str(path))
    assert said in str(error.value)


def test_an_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="did you mean 'gke'"):
        profiles.load("gkee")
