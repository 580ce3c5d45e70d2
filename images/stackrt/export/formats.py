"""A language model in each format: how it is written, and how what was written computes."""

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stackrt.export import compared
from stackrt.finished import quantized
from stackrt.finished.language import LanguageModel, open_model
from stackrt.train.errors import BadInputError, TrainerError

Run = Callable[[Tensor], Tensor]
"""Token ids, [batch, tokens], to logits."""
NAME_IN, NAME_OUT = "input_ids", "logits"
_OPERATOR = re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)'")


class Logits(nn.Module):
    """A model as a function of token ids alone, which gives logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits, [batch, tokens, vocabulary]."""
        logits: Tensor = self.model(input_ids=input_ids, use_cache=False).logits
        return logits


def write_onnx(module: nn.Module, path: Path, positions: int) -> Run:
    """An ONNX file of any batch and length; gives it as ONNX Runtime computes it.

    Raises:
        BadInputError: ONNX has no operator for one of the model's; it is named.
    """
    import onnxruntime

    with _quiet():
        try:
            torch.onnx.export(module, (_example(positions),), path, dynamo=True, external_data=False, verbose=False,
                              input_names=[NAME_IN], output_names=[NAME_OUT], dynamic_shapes=_shapes(positions),
                              report=False, optimize=True)  # fmt: skip
        except Exception as error:  # the exporter has one kind a stage, none of them public
            raise BadInputError(f"--to onnx: {unsupported(error)}") from None
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its kinds are those of its C++ insides
        raise BadInputError(
            f"--to onnx: ONNX Runtime cannot use what was written: {str(error).splitlines()[0]}"
        ) from None

    def run(ids: Tensor) -> Tensor:
        return torch.from_numpy(session.run([NAME_OUT], {NAME_IN: ids.numpy()})[0])

    return run


def unsupported(error: BaseException) -> str:
    """Why a model could not be written as ONNX: the operator that is missing there, else what the exporter says."""
    cause: BaseException | None = error
    while cause is not None:
        if found := _OPERATOR.search(str(cause)):
            return f"ONNX has no operator for {found[1]}, which the model uses; export to pt2, or write it without"
        cause = cause.__cause__ or cause.__context__
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"the model cannot be written: {first}"


def write_pt2(module: nn.Module, path: Path, positions: int) -> Run:
    """What torch.export makes, of any batch and length; gives it as it is read back.

    Raises:
        BadInputError: The model's code cannot be traced.
    """
    with _quiet():
        try:
            program = torch.export.export(module, (_example(positions),), dynamic_shapes=_shapes(positions))
            torch.export.save(program, path)
        except (RuntimeError, ValueError, TypeError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BadInputError(f"--to pt2: the model cannot be written: {first}") from None
        read: Run = torch.export.load(path).module()
    return read


def write_safetensors(opened: LanguageModel, path: Path) -> Run:
    """A Hugging Face folder; gives it as it is read back.

    Raises:
        TrainerError: The disk is full or failing.
    """
    saver: Any = opened.model
    try:
        with quantized.saving(path):
            saver.save_pretrained(path)
        opened.tokenizer.save_pretrained(path)
    except OSError as error:
        raise TrainerError(f"{path}: could not be written: {error.strerror or error}") from None
    return Logits(open_model(path, "--to safetensors").model)


def largest_difference(run: Run, original: nn.Module, inputs: Tensor, batch: int) -> float:
    """Of all logits, in batches of a size; a batch is also cut to another length now and then."""

    def of(number: int, ids: Tensor) -> float:
        part = ids if number % 2 == 0 else ids[:, : max(1, ids.shape[1] // 2)].contiguous()
        with torch.no_grad():
            return float((run(part).float() - original(part).float()).abs().max())

    return compared.largest(of(number, ids) for number, ids in enumerate(torch.split(inputs, batch)))


def _example(positions: int) -> Tensor:
    return torch.zeros(2, min(8, positions), dtype=torch.int64)


def _shapes(positions: int) -> dict[str, Any]:
    batch, sequence = torch.export.Dim("batch", min=1), torch.export.Dim("sequence", min=1, max=positions)
    return {NAME_IN: {0: batch, 1: sequence}}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters say of their own insides."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "torch._dynamo")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
