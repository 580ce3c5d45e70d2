"""A state of numpy arrays and plain values as one `.npz` file, and back. No framework in here."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

State = dict[str, Any]
_PLAIN = "state.json"
"""The member that holds what is no array; no key of a state has that name."""


def packed(state: State) -> bytes:
    """The bytes of the file.

    Args:
        state: Name -> an array, a dictionary of arrays by name, or what JSON can say.
    """
    kinds = (np.ndarray, np.generic)
    arrays: dict[str, Any] = {}
    plain: State = {}
    for key, value in state.items():
        if isinstance(value, kinds):
            arrays[key] = value
        elif isinstance(value, dict) and value and all(isinstance(row, kinds) for row in value.values()):
            arrays |= {f"{key}/{name}": row for name, row in value.items()}
        else:
            plain[key] = value
    buffer = io.BytesIO()
    np.savez(buffer, **dict[str, Any]({_PLAIN: np.array(json.dumps(plain)), **arrays}))
    return buffer.getvalue()


def read(source: Path | bytes) -> State:
    """The state that was packed; numbers have the form that JSON gives them."""
    with np.load(io.BytesIO(source) if isinstance(source, bytes) else source, allow_pickle=False) as file:
        state: State = json.loads(str(file[_PLAIN]))
        for name in file.files:
            key, _, rest = name.partition("/")
            if rest:
                state.setdefault(key, {})[rest] = file[name]
            elif name != _PLAIN:
                state[key] = file[name]
    return state
