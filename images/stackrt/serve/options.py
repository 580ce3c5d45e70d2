"""The server's command line. Standard library only: what cannot work is said before anything slow is imported."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from stackrt.train.command_line import Parser, Rule, refuse, temporary_files
from stackrt.train.errors import BadInputError

PORT = 8000
DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Options:
    """What a server is asked for; the help of each option says what it means."""

    model: Path
    name: str = ""
    host: str = "127.0.0.1"
    port: int = PORT
    door: str = ""
    workers: int = 1
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    context: int = 4096
    max_batch: int = 16
    batch_wait: float = 0.002
    queue: int = 64
    queue_timeout: float = 20.0
    time_limit: float = 120.0
    max_body: float = 8.0
    read_timeout: float = 10.0
    max_connections: int = 512
    token_file: Path | None = None
    orders: Path | None = None
    drain: float = 5.0
    grace: float = 30.0
    memory: float = 0.0


_HELP: dict[str, str] = {
    "name": "the model's name in requests; the folder's by default",
    "host": "the address to listen on",
    "port": "its port; 0 for any that is free",
    "door": "take the socket from the `python -m stackrt.serve.door` of this name, instead of a port",
    "workers": "processes that answer, each with a copy of the model, on the GPUs in turn",
    "device": "auto, cpu or cuda",
    "dtype": "of the weights: auto (as they are saved), float32, bfloat16 or float16",
    "threads": "of each worker on a CPU; 0 for the machine's cores over the workers",
    "context": "the most tokens of a prompt and its answer; the model's own bound if that is less",
    "max_batch": "requests that are computed together",
    "batch_wait": "seconds that the first picture of a batch waits for more",
    "queue": "requests that wait, of each worker; more are answered with 429",
    "queue_timeout": "seconds that a request may wait for its turn; then it is answered with 503",
    "time_limit": "seconds that an answer may take; a text ends then",
    "max_body": "the largest request, in MiB",
    "read_timeout": "seconds that a client may take to send its request",
    "max_connections": "connections of each worker; more are answered with 503",
    "token_file": "a file with the token that clients must send (Authorization: Bearer …), read again when it changes",
    "orders": "a file in which another model may be named while the server runs: `python -m stackrt.serve.order` does",
    "drain": "seconds after SIGTERM in which new requests are still answered, until no more come",
    "grace": "seconds after that in which answers may end",
    "memory": "GiB that the server may use; by default what this machine or container has",
}


def parse(argv: Sequence[str]) -> Options:
    """The options of a command line.

    Raises:
        BadInputError: A value cannot work.
    """
    parser = Parser(prog="python -m stackrt.serve", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument("model", type=Path, metavar="FOLDER", help="a Hugging Face folder, or a .keras file")
    for field in fields(Options):
        if field.name == "model":
            continue
        kind: Any = Path if field.name in ("token_file", "orders") else type(field.default)
        choices = {"device": DEVICES, "dtype": DTYPES}.get(field.name)
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, type=kind, default=field.default, choices=choices, help=_HELP[field.name])
    o = Options(**vars(parser.parse_args(list(argv))))
    counts = ("workers", "max_batch", "queue", "max_connections")
    seconds = ("queue_timeout", "time_limit", "read_timeout", "max_body")
    rules: list[Rule] = [
        *((name, 1 <= getattr(o, name) <= 4096, "must be from 1 to 4096") for name in counts),
        *((name, 0 < getattr(o, name) <= 86_400, "must be more than 0, and 86400 at most") for name in seconds),
        *((name, 0 <= getattr(o, name) <= 3600, "must be from 0 to 3600") for name in ("drain", "grace", "batch_wait")),
        ("port", 0 <= o.port <= 65_535, "must be from 0 to 65535"),
        ("threads", 0 <= o.threads <= 1024, "must be from 0 to 1024"),
        ("context", o.context >= 2, "must be 2 or more"),
        ("memory", 0 <= o.memory <= 1e6, "must be 0 or more"),
        ("name", not o.name or o.name.isprintable(), "must be one line"),
    ]
    refuse(o, rules)
    temporary_files()
    token(o.token_file)
    return o


def token(file: Path | None) -> str:
    """What clients must send; empty where no file is named.

    Raises:
        BadInputError: The file cannot be read, or holds no token.
    """
    if file is None:
        return ""
    try:
        found = file.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "it is not plain text"
        raise BadInputError(f"--token-file {file}: {why}; give a file that holds the token alone") from None
    if len(found.split()) != 1:
        raise BadInputError(f"--token-file {file}: must hold one word, the token")
    return found
