"""Every command that a page shows works: it is run here, or by a test that is named here."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.commands import ROOT, Stackctl

PAGES = sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

RUN_ELSEWHERE = {
    "make demo": "test_demo.py::test_without_docker_two_nodes_train_as_processes",
    "make lint": "test_workflow.py::test_a_stranger_without_docker_uv_and_torch_can_run_the_steps",
    "make test-fast": "test_workflow.py::test_a_stranger_without_docker_uv_and_torch_can_run_the_steps",
    "make test": "../../.ci/run",
    "make test LANES=checks runs": "test_lanes.py::test_make_passes_lanes_and_options_on",
    "make test-cluster": "../../.ci/run",  # its tests are part of all tests
    "python -m tests.cluster.harness up": "../cluster/test_harness.py::test_nothing_is_left_of_a_cluster",
    "pip install .": "test_install.py::test_an_installed_stackctl_plans_and_runs",
    "docker compose up trainer": "test_compose_file.py::test_one_node_then_two_as_the_readme_has_it",
    "docker compose up node-0 node-1": "test_compose_file.py::test_one_node_then_two_as_the_readme_has_it",
    "docker compose up tensorboard": "test_compose_file.py::test_tensorboard_shows_the_curves",
    "docker compose --profile * down --volumes": "test_compose_file.py::test_one_node_then_two_as_the_readme_has_it",
    "docker compose cp trainer:/out ./out": "test_compose_file.py::test_one_node_then_two_as_the_readme_has_it",
    "docker compose -f compose.yaml -f compose/gpu.yaml up trainer": (
        "test_compose_file.py::test_every_file_is_valid_and_hardened"  # no GPU here: the file is checked
    ),
    "python -m stackrt.train.gpt": "train/test_gpt.py",
    "stackctl run prepare --procs 8 -- --data corpus --to shards": (
        "train/test_prepare.py::test_two_ranks_under_stackctl_write_the_bytes_of_one"
    ),
    "stackctl run gpt --env MLFLOW_TRACKING_URI=http://mlflow:5000 -- --track mlflow": (
        "train/test_tracking.py::test_mlflow_shows_the_run_and_its_death_ends_nothing"
    ),
    "stackctl run gpt --nodes 2 --procs 2 -- --data shards": (
        "train/test_prepare.py::test_gpt_trains_on_it_and_says_what_is_missing"
    ),
    "torchrun --nproc-per-node 4 -m stackrt.train.gpt --steps 100": "train/test_launched.py",
    "stackctl run lm --procs 2 -- --model my-model --init my-model --data chats.jsonl": (
        "train/test_finetune.py::test_the_held_out_dialogues_are_answered_better"
    ),
    "stackctl run lm --procs 2 -- --model my-model --init my-model --data chats.jsonl --lora 16 --export my-chat": (
        "train/test_finetune.py::test_an_export_with_adapters_is_what_peft_merges"
    ),
    "STACK_TEST_KILLS=50 python -m pytest tests/integration/train/test_lm_failures.py -s -k kills_at_random": (
        "train/test_lm_failures.py::test_kills_at_random_moments_also_within_a_save"
    ),
    "torchrun --nproc-per-node 2 docs/examples/ddp.py": "train/test_examples.py::test_under_torchrun",
    "stackctl test pytorch --on kubernetes --all-nodes": "../cluster/test_suite.py::test_the_bad_node_is_named",
    "docker compose run --rm suite": "test_compose_file.py::test_the_suite_runs_for_any_uid_on_a_read_only_root",
    "docker run --rm --shm-size 1g stack-pytorch:cpu python -m stackrt.checks": (
        "checks/test_suite.py::test_in_a_plain_container"
    ),
    "docker build -t mytf -f images/dockerfiles/tensorflow-cpu.Dockerfile .": "test_build.py::test_the_classic_road",
    "docker run -it --rm -v $PWD:/workspace mytf /bin/bash": "test_build.py::test_the_classic_road",
    # 7 GB, and a GPU: here the Dockerfile is linted, and its images are built by hand.
    "docker build -t mytf -f images/dockerfiles/tensorflow-cuda.Dockerfile .": "../../scripts/lint",
    "docker run -it --rm --gpus all -v $PWD:/workspace mytf /bin/bash": "test_build.py::test_the_classic_road",
    "stackctl lock pytorch": "test_lock.py::test_locks_are_made_from_the_catalog",
    "make images": "test_build.py::test_make_images_builds_what_it_is_told",
    "make images IMAGES=pytorch tensorflow VARIANT=cpu": "test_build.py::test_make_images_builds_what_it_is_told",
    "stackctl data fetch fashion-mnist": (
        "images/pictures/test_pictures.py::test_cnn_learns_fashion_mnist_and_goes_on_after_a_stop"
    ),
    "STACK_DATA_MIRROR=/media/usb/sets stackctl data fetch fashion-mnist": (
        "../unit/stackctl/data/test_cache.py::test_a_mirror_goes_first_and_may_be_a_folder"
    ),
    "stackctl wheelhouse pytorch wheels --variant cpu": (
        "ship/test_wheelhouse.py::test_it_says_first_what_it_fetches_and_keeps_what_is_there"  # of a small image
    ),
    "stackctl build pytorch --variant cpu --wheelhouse wheels --offline": (
        "ship/test_wheelhouse.py::test_an_engine_without_a_network_builds_from_it_alone"
    ),
    "stackctl submit --nodes 2 --gpus 8 --secret-env WANDB_API_KEY -- python mine.py": (
        "../cluster/test_identity.py::test_a_value_of_ones_own_is_in_the_runs_secret_and_nowhere_else"
    ),
    "stackctl submit --via jobset --nodes 2 --gpus 8": (
        "../cluster/test_via.py::test_one_job_by_all_three_gives_the_same_parameters"
    ),
    "stackctl render": "test_lock.py::test_locks_are_made_from_the_catalog",
    "stackctl status gpt-1122-031500": "../cluster/test_access.py::test_the_role_is_enough",
    "stackctl wait gpt-1122-031500": "../cluster/test_access.py::test_the_role_is_enough",
    "stackctl cancel gpt-1122-031500": "../cluster/test_access.py::test_the_role_is_enough",
    "stackctl logs -f gpt-1122-031500 --rank 3": "../cluster/test_access.py::test_the_role_is_enough",
    "stackctl exec gpt-1122-031500 --rank 3 -- nvidia-smi": "test_enter.py::test_processes_are_entered",
    'stackctl exec -t gpt-1122-031500 -- sh -c tensorboard --logdir "$STACK_OUT"': (
        "../cluster/test_exec.py::test_a_shell_has_a_terminal_that_follows_ours"
    ),
    "stackctl shell gpt-1122-031500 --rank 3": "test_enter.py::test_containers_are_entered",
    "stackctl forward gpt-1122-031500 6006": "../cluster/test_exec.py::test_a_port_of_the_pods_loopback_is_reached",
    "stackctl serve run": "serve/test_command.py::test_a_run_is_served_as_a_process",
    "stackctl serve plays": "serve/test_command.py::test_a_run_is_served_as_a_process",
    "stackctl serve plays --on compose --token-file token": "serve/test_command.py::test_a_service_as_a_container",
    "stackctl serve better --name plays --model-name plays": (
        "serve/test_command.py::test_a_run_is_served_as_a_process"
    ),
    "stackctl serve plays -- --workers 2 --max-batch 32": "serve/test_command.py::test_an_interrupted_service_ends",
    "stackctl serve plays/export --on kubernetes --volume checkpoints --replicas 2 --name plays": (
        "../cluster/test_service.py::test_a_service_answers_and_is_changed_without_a_failed_request"
    ),
    "stackctl forward plays 8000": (
        "../cluster/test_service.py::test_a_service_answers_and_is_changed_without_a_failed_request"
    ),
    "stackctl explain gpt-1122-031500": "../cluster/test_access.py::test_the_role_is_enough",
    "stackctl submit -f job.toml": "../cluster/test_options.py::test_the_cluster_takes_every_option",
    "stackctl submit -f job.toml --nodes 4 --env NCCL_DEBUG=INFO": (
        "../unit/stackctl/cli/test_job_file.py::test_the_command_line_wins"
    ),
    "stackctl run -f job.toml --gpus 0 --procs 2": (
        "../unit/stackctl/cli/test_job_file.py::test_one_file_does_for_both_commands"
    ),
}
"""Command -> the file and test that runs it for real."""


def commands() -> list[tuple[str, str]]:
    """(page, command) for each `$ …` line in a console block; comments and repeated spaces dropped."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
            for line in block.splitlines():
                if line.startswith("$ "):
                    found.append((page, " ".join(shlex.split(line[2:], comments=True))))
    return found


def test_pages_show_commands() -> None:
    assert {page for page, _ in commands()} >= {"README.md", "docs/training.md", "docs/compose.md", "docs/images.md"}


@pytest.mark.parametrize(("page", "command"), sorted({(page, command) for page, command in commands()}))
def test_a_shown_command_works(page: str, command: str, stackctl: Stackctl, tmp_path: Path) -> None:
    if command in RUN_ELSEWHERE:
        name, _, test = RUN_ELSEWHERE[command].partition("::")
        text = (Path(__file__).parent / name).read_text()
        assert f"def {test}(" in text if test else text
        return
    program, *words = shlex.split(command)
    assert program == "stackctl", f"{page}: nothing runs `{command}`: add it to RUN_ELSEWHERE"
    if words[0] in ("run", "build", "submit", "test") and "--dry-run" not in words:
        at = words.index("--") if "--" in words else len(words)
        words.insert(at, "--dry-run")
    code = tmp_path / "code"
    code.mkdir()
    (code / "mine.py").touch()
    done = stackctl(*words, cwd=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_locks_answer_to_the_catalog(stackctl: Stackctl) -> None:
    assert stackctl("lock", "--check").returncode == 0
    assert stackctl("render", "--check").returncode == 0


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def test_every_setting_is_documented() -> None:
    """The settings that the code reads from the environment, against docs/settings.md, launcher.md and compose.md."""
    documented = "".join((ROOT / "docs" / name).read_text() for name in ("settings.md", "launcher.md", "compose.md"))
    read = set()
    for path in [*(ROOT / "stackctl").rglob("*.py"), *(ROOT / "compose").glob("*.yaml"), ROOT / "compose.yaml"]:
        read |= set(re.findall(r"\bSTACK_[A-Z_]+\b", path.read_text()))
    internal = {"STACK_SECRET_UV_TOML", "STACK_SECRET_PIP_CONF", "STACK_SECRET_", "STACK_"}
    assert {name for name in read - internal if f"`{name}" not in documented} == set()


def test_docs_name_no_machine_of_ours() -> None:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True,
                            check=True).stdout.split()  # fmt: skip
    for name in listed:
        path = ROOT / name
        if path.is_file() and path.suffix in {".md", ".py", ".toml", ".yaml", ".yml", ".txt", ".j2", ""}:
            assert str(ROOT) not in path.read_text(errors="ignore"), name
