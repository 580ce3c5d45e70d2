"""Asking a server that runs to go over to another model: a file names the model, one beside it tells what came of it.

Files alone, so that it works alike for a process and in a container, and who may write the file may ask.
"""

import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

State = Literal["loading", "serving", "refused"]


@dataclass(frozen=True)
class Order:
    """A model to go over to: the server's command line for it."""

    id: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What came of an order so far; `said` is why it was refused."""

    id: str
    state: State
    said: str = ""


def give(file: Path, words: Sequence[str]) -> Order:
    """Write an order; the server looks at the file twice a second.

    Raises:
        OSError: It cannot be written.
    """
    order = Order(uuid.uuid4().hex, tuple(words))
    _write(file, asdict(order))
    return order


def given(file: Path) -> Order | None:
    """The order that a file holds, if it holds a whole one."""
    row = _read(file)
    words = row.get("words")
    if not isinstance(row.get("id"), str) or not isinstance(words, list) or not all(isinstance(w, str) for w in words):
        return None
    return Order(row["id"], tuple(words))


def answer(file: Path, order: Order, state: State, said: str = "") -> None:
    """Tell what comes of an order.

    Raises:
        OSError: It cannot be written.
    """
    _write(_beside(file), asdict(Answer(order.id, state, said)))


def answered(file: Path, order: Order) -> Answer | None:
    """What the server has said about an order."""
    row = _read(_beside(file))
    state = row.get("state")
    if row.get("id") != order.id or state not in ("loading", "serving", "refused"):
        return None
    return Answer(order.id, state, str(row.get("said", "")))


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.answer")


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(file: Path, row: dict[str, Any]) -> None:
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        part.write_text(json.dumps(row) + "\n", encoding="utf-8")
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
