"""Services: which model is meant, and the request that starts a server of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from stackctl import folders
from stackctl.errors import InvalidInput, did_you_mean
from stackctl.jobs import serving
from stackctl.jobs.yaml_text import to_yaml
from stackctl.runs import backends, store
from stackctl.runs.backends.base import Request
from stackctl.runs.handle import Told
from stackctl.runs.states import ENDED

ORDERS = "next-model.json"
"""In a service's folder: the file in which it is told of another model."""
OUT = "/out"
"""Where a container sees its run's folder."""


class Model(msgspec.Struct, frozen=True):
    """A model on this machine: where it is, and what it is called in requests."""

    path: Path
    name: str


def find(word: str, called: str | None, engine: str = "stack") -> Model:
    """The model that a person means: a folder or file here, or a finished run of the store.

    Args:
        word: What they said.
        called: What it is to be called; by default as its run, or its folder.
        engine: The server that is to read it.

    Raises:
        InvalidInput: There is none, or it is not whole.
    """
    path, home = folders.expanded(word), store.home(os.environ)
    if not path.exists() and "/" not in word:
        path = home / word
        record = store.find_record(path) if path.exists() else None
        if record is not None and record.state not in ENDED:
            raise InvalidInput(f"this run has not finished: it is {record.state}", where=word, hint="wait for its end")
    if not path.exists():
        known = [record.name for record in store.records(home, lambda _error: None)]
        hint = "; ".join(filter(None, ("name a folder, a .keras file or a run", did_you_mean(word, known))))
        raise InvalidInput("there is no such file, folder or run", where=word, hint=hint)
    found = Path(os.path.abspath(_checked(path, engine)))  # noqa: PTH100 - it is called by its name, which `..` is none
    return Model(found, serving.model_name(called or _name(found)))


def _checked(path: Path, engine: str) -> Path:
    """Where the model is, within a run's folder perhaps; it is one that the engine reads."""
    from stackrt.serve import found as models
    from stackrt.train.errors import BadInputError

    if engine == "tf-serving":
        for folder in (path, path / "export" / "saved_model", path / "saved_model"):
            if any(folder.glob("[0-9]*/saved_model.pb")):
                return folder
        hint = "export it as a SavedModel: docs/serving.md"
        raise InvalidInput(f"is not {serving.SERVERS[engine].reads}", where=str(path), hint=hint)
    try:
        model = models.find(path)
    except BadInputError as error:
        raise InvalidInput(str(error)) from None
    if engine == "vllm" and model.kind != "language":
        raise InvalidInput("vLLM serves language models", where=str(model.path), hint="leave out --engine")
    return model.path


def _name(path: Path) -> str:
    from stackrt.serve.naming import name_of

    return name_of(path)


def request(
    model: Model, *, name: str, where: str, port: int, gpus: int, image: str | None, token: Path | None,
    more: Sequence[str], quiet: bool = False, place: str | None = None,
) -> Request:  # fmt: skip
    """What a backend of this machine is asked for.

    Args:
        name: Of the service.
        where: The backend.
        port: On which this machine's clients reach it.
        token: The file with the token that they must send.
        more: More options of the server.
        quiet: Send what it prints to standard error.
        place: Where its container has the model; None for where it is mounted at the start.
    """
    if token is not None and not token.is_file():
        raise InvalidInput("there is no such file", where=f"--token-file {token}")
    contained = backends.row(where).containers
    folder = store.home(os.environ) / name
    place = place or (f"{serving.MODEL}/{model.path.name}" if contained else str(model.path))
    options = [*(("--token-file", serving.TOKEN if contained else str(token.absolute())) if token else ()),
               "--orders", f"{OUT if contained else folder}/{ORDERS}", *more]  # fmt: skip
    # In a container the network is its own; who may reach it is said where its port is published.
    host, inside = ("0.0.0.0", serving.PORT) if contained else ("127.0.0.1", port)  # noqa: S104
    job = serving.job(name, place, model.name, host=host, port=inside, more=options, gpus=gpus, image=image)
    reads = {str(model.path): place} | ({str(token.absolute()): serving.TOKEN} if token else {})
    return Request(
        job=job, folder=folder, workdir=Path.cwd(), quiet=quiet, publish=port,
        token_file=str(token.absolute()) if token else "", reads=reads if contained else {},
    )  # fmt: skip


def other(model: Model, engine: str, *, name: str, port: int, image: str | None, gpus: int) -> Told:
    """The Compose document of another server, which is not started."""
    document = serving.elsewhere(engine, str(model.path), model.name, name=name, port=port, image=image, gpus=gpus)
    return Told(to_yaml(document), document)
