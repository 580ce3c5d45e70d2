"""A Keras model: its shape, and the thread that computes many requests at once."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import torch

from stackrt.serve.found import Model
from stackrt.serve.waiting import Waiting
from stackrt.train.errors import BadInputError

Done = Callable[["np.ndarray[Any, Any] | None", str], None]
"""Is given the outputs, or None and why there are none: `busy` or `error`."""


@dataclass(eq=False)
class Rows:
    """The inputs of one request, of shape [rows, ...]."""

    inputs: "np.ndarray[Any, Any]"
    put: Done
    since: float = field(default_factory=time.monotonic)
    gone: bool = False

    @property
    def size(self) -> int:
        """Rows."""
        return len(self.inputs)

    def expired(self) -> None:
        """It waited too long for its turn."""
        self.put(None, "busy")


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives: names, and shapes without the batch's own side; None for any length."""

    input_name: str
    input_shape: tuple[int | None, ...]
    input_dtype: str
    output_name: str
    output_shape: tuple[int | None, ...]


def load(found: Model, say: Callable[[str], None]) -> tuple[Callable[[Any], Any], Signature]:
    """Load a model: the function that computes, and its signature.

    Raises:
        BadInputError: Keras cannot load it, or it has not one input and one output.
    """
    import keras

    try:
        # Its functions may be anything: those of a safe file are Keras' own.
        model: Any = keras.saving.load_model(str(found.path), compile=False, safe_mode=True)
    except Exception as error:
        raise BadInputError(f"{found.path}: Keras cannot load it: {_line(error)}") from None
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise BadInputError(f"{found.path}: has {len(model.inputs)} inputs and {len(model.outputs)} outputs; this "
                            "server knows models of one each; try --engine tf-serving")  # fmt: skip
    given, made = model.inputs[0], model.outputs[0]
    signature = Signature(
        str(given.name), tuple(given.shape[1:]), str(given.dtype), str(made.name), tuple(made.shape[1:])
    )

    def compute(inputs: Any) -> Any:
        with torch.inference_mode():
            outputs = model(torch.as_tensor(inputs), training=False)
            return outputs.detach().float().cpu().numpy()

    trial = np.zeros((1, *(side or 8 for side in signature.input_shape)), signature.input_dtype)
    try:
        compute(trial)
    except Exception as error:
        raise BadInputError(f"{found.path}: does not compute on PyTorch: {_line(error)}") from None
    say(f"{model.name}, a Keras model of {model.count_params():,} parameters, {list(signature.input_shape)} -> "
        f"{list(signature.output_shape)}")  # fmt: skip
    return compute, signature


def _line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]


class Engine:
    """The thread that computes; as `generate.Engine`.

    Args:
        compute: Inputs to outputs, [rows, ...] each.
        waiting: Where requests wait for it.
        most: Rows of a batch.
        gather: Seconds that the first request waits for more.
        watch: Is told the size of each batch.
        tell: Is told of errors.
    """

    def __init__(
        self,
        compute: Callable[[Any], Any],
        waiting: Waiting[Rows],
        most: int,
        gather: float,
        watch: Callable[[int], None],
        tell: Callable[[str], None],
    ) -> None:
        self._compute, self.waiting, self._most, self._gather = compute, waiting, most, gather
        self._watch, self._tell, self._ended, self.load = watch, tell, False, 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it still computes."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End it, with all that wait."""
        self._ended = True
        self.waiting.close()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._ended:
            taken = self.waiting.take(self._most, wait=True, gather=self._gather)
            if not taken:
                continue
            # Rows of one length only go together, where a model takes several.
            while taken:
                same = [item for item in taken if item.inputs.shape[1:] == taken[0].inputs.shape[1:]]
                taken = [item for item in taken if item not in same]
                self._answer(same)

    def _answer(self, items: list[Rows]) -> None:
        self.load = sum(item.size for item in items)
        try:
            outputs = self._compute(np.concatenate([item.inputs for item in items]))
            self._watch(self.load)
            at = 0
            for item in items:
                item.put(outputs[at : at + item.size], "")
                at += item.size
        except Exception as error:  # one that cannot be computed must not end the others to come
            self._tell(_line(error))
            for item in items:
                item.put(None, "error")
        finally:
            self.load = 0
