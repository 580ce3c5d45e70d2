"""Run the suite in an image: one container, or a Compose project with a container a node."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from stackctl.engines import container, docker
from stackctl.errors import InvalidInput, JobFailed, MissingHere
from stackctl.runs.handle import Tell
from stackctl.suite import compare, plan
from stackctl.suite.compare import Report
from stackctl.suite.plan import Selection
from stackrt.contract import LOCK_LABEL


def in_docker(image: str, chosen: Selection, *, name: str, hint: str) -> Report:
    """Run the suite in a container of an image; its progress goes to standard error.

    Args:
        name: The container's name.
        hint: Where to get the image, should it be absent.

    Raises:
        MissingHere: No engine, no such image, or no runtime for GPUs.
        InvalidInput: The image does not carry the suite.
        JobFailed: The suite ended without a report.
    """
    from stackrt.launch.gpus import count_visible

    info = _image(image, hint)
    stop = None
    if not (chosen.only or chosen.tags) or "init-signals" in chosen.only or "process" in chosen.tags:
        stop = container.stop_seconds(image, f"{name}-stop")
    seen = {"digest": info.id, "size": info.size, "labels": info.labels, "stop_seconds": stop}
    config = plan.config(image, chosen, seen=json.dumps(seen), gpus=count_visible() > 0)
    code, text = container.run(config, name)
    if code != 0 or not text.strip():
        raise JobFailed(f"the suite ended with exit code {code} and without a report", hint="the lines above say why")
    return compare.read(text, "the suite's report")


def in_compose(image: str, chosen: Selection, *, name: str, nodes: int, timeout: int, hint: str, say: Tell) -> Report:
    """Run the suite on several nodes in Docker Compose; node 0's report covers them all.

    Args:
        say: Is given what a person should see meanwhile.

    Raises:
        MissingHere, InvalidInput, JobFailed: As in_docker.
        KeyboardInterrupt: It was stopped.
    """
    from stackctl.runs import backends
    from stackctl.runs.backends.base import Request

    docker.require("compose")
    _image(image, hint)
    job = plan.job(image, chosen, name=name, nodes=nodes, timeout=timeout)
    with tempfile.TemporaryDirectory(prefix="stackctl-test-") as temporary:
        folder, empty = Path(temporary) / name, Path(temporary) / "empty"
        Path(temporary).chmod(0o755)  # the containers' user looks in
        empty.mkdir()
        asked = Request(job=job, folder=folder, workdir=empty, quiet=True)
        outcome = backends.load("compose").start(asked, say).wait()
        if outcome.state == "stopped":
            raise KeyboardInterrupt
        file = folder / plan.REPORT
        if not file.exists():
            raise JobFailed(
                f"the suite ended with exit code {outcome.exit_code} and without a report",
                hint="the lines above say why",
            )
        return compare.read(file.read_text(encoding="utf-8"), "the suite's report")


def _image(image: str, hint: str) -> docker.ImageInfo:
    docker.require()
    info = docker.image(image)
    if info is None:
        raise MissingHere(f"there is no image {image} here", hint=hint)
    # Every image of this stack has it, and what is built FROM one inherits it.
    if LOCK_LABEL not in info.labels:
        raise InvalidInput(
            f"{image} does not carry the suite: it has no label {LOCK_LABEL}",
            hint="name an image of this stack (stackctl images), or one that is built FROM it",
        )
    return info
