"""What a person need not say of a job: its run's name, and what its ranks expect. For the command line and Python."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from stackctl.errors import InvalidInput, did_you_mean
from stackctl.runs import places, store
from stackctl.runs.handle import Tell


def stem(command: Sequence[str]) -> str:
    """What to call a run of the user's own command: its script or module, else its program."""
    program, *more = command
    if Path(program).name.startswith("python"):
        if more[:1] == ["-m"] and len(more) > 1:
            return more[1].rpartition(".")[2]
        return next((Path(word).stem for word in more if word.endswith(".py")), Path(program).stem)
    return Path(program).stem


def free_name(workload: str, command: Sequence[str], *, for_cluster: bool = False) -> str:
    """A name from what is run and when; a number behind it where several runs start within one second.

    Args:
        for_cluster: It begins with a letter, as names of Services must.
    """
    base = store.new_name(workload or stem(command), datetime.now())
    if for_cluster and not base[0].isalpha():
        base = f"run-{base}"
    home = store.home(os.environ)
    return next(name for name in [base, *(f"{base}-{n}" for n in range(2, 1000))] if not places.taken(home, name))


def framework(image: str | None, given: str | None, workload: str, tell: Tell) -> str | None:
    """What ranks expect of the launcher: what was given, else what the catalog says of the image.

    Of an image that the catalog does not know that it means torch is told; a name that may be a slip of the pen is
    none of ours and has no tag.

    Raises:
        InvalidInput: A workload has its own, or the image's name is nearly one of the catalog.
    """
    if workload and given:
        raise InvalidInput(f"the workload {workload!r} has its own", where=f"--framework {given}", hint="leave it out")
    if not image:
        return given
    from stackctl.images import catalog

    rows = catalog.load().images
    if image in rows:
        return given or rows[image].launcher
    if not set("/:@") & set(image) and (guess := did_you_mean(image, rows)).startswith("did"):
        raise InvalidInput("is no image of the catalog", where=f"--image {image}", hint=f"{guess} Or add its tag")
    if not (given or workload):
        tell(f"note: {image} is not of the catalog: its ranks get torch's variables (--framework)")
    return given
