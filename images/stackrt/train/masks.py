"""What a token attends to, as a model is told it: by positions alone, or by masks where it takes no notice of them.

Documents that are packed into one row must not see each other, and ranks that share a sequence see what others hold.
Whether a model keeps documents apart is found out by trying: some ignore positions (OPT, Falcon), some carry a state on
from token to token (Mamba), and none of them says so.
"""

import math
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stackrt.train import mesh
from stackrt.train.errors import BadInputError
from stackrt.train.lm_options import Options
from stackrt.train.mesh import Place
from stackrt.train.ranks import Ranks
from stackrt.train.text import Batch, Packed

_FULL, _SLIDING = "full_attention", "sliding_attention"  # what transformers calls kinds of layers
_HALF = 8
"""Tokens of each of two documents that are tried, for each rank that shares a sequence."""
_ROUNDING = {"fp32": 1e-5, "bf16": 5e-3}
"""What a mean answer may change by, of its size, where nothing but the order of the computation has changed."""


class Part(NamedTuple):
    """What a rank computes of a batch: tokens, those that follow them, and what a model is told beside them."""

    inputs: Tensor
    targets: Tensor
    beside: dict[str, Any]


@dataclass(frozen=True)
class Masks:
    """The masks that a model's layers take.

    Attributes:
        windows: How many tokens each kind of layer sees, itself included; 0 for all. A model of one kind has it as "".
        dtype: Of a mask that is added to the scores; None for one that says what is seen.
    """

    windows: dict[str, int]
    dtype: torch.dtype | None

    def of(self, positions: Tensor, own: Tensor) -> Tensor | dict[str, Tensor]:
        """Masks [batch, 1, own, all] for some tokens of rows, whose documents begin where a position is 0."""
        tokens = torch.arange(positions.shape[1])
        documents = (positions == 0).cumsum(1)
        back = own[:, None] - tokens
        sees = (documents[:, own, None] == documents[:, None, :]) & (back >= 0)
        made = {kind: self._made(sees & (back < window) if window else sees) for kind, window in self.windows.items()}
        return made.get("", made)

    def _made(self, sees: Tensor) -> Tensor:
        sees = sees[:, None]
        if self.dtype is None:
            return sees
        return torch.zeros(sees.shape, dtype=self.dtype).masked_fill(~sees, torch.finfo(self.dtype).min)


def part_of(batch: Batch | Packed, place: Place, masks: Masks | None) -> Part:
    """This rank's part of each sequence: all of it, unless several ranks share one."""
    positions = batch.positions if isinstance(batch, Packed) else None
    if masks is None:
        return Part(batch.inputs, batch.targets, {} if positions is None else {"position_ids": positions})
    tokens = torch.arange(batch.inputs.shape[1])
    own = tokens.chunk(place.parts)[place.part]
    positions = tokens.expand(batch.inputs.shape) if positions is None else positions
    beside = {"position_ids": positions[:, own], "attention_mask": masks.of(positions, own)}
    return Part(batch.inputs[:, own], batch.targets[:, own], beside)


def see_shareable(model: nn.Module, blocks: Iterable[nn.Module], o: Options) -> None:
    """See that ranks can share a sequence: each block attends, and nothing else passes from token to token.

    Raises:
        BadInputError: They cannot.
    """
    if o.context_parallel == 1:
        return
    if any(not any(hasattr(module, "is_causal") for module in block.modules()) for block in blocks):
        raise BadInputError(f"{_shared(o)} has layers that are no attention, whose tokens no ranks can share")
    if _added(model):
        raise BadInputError(f"{_shared(o)} computes attention in a way of its own, which no ranks can share")
    if _windows(model) is None:
        raise BadInputError(f"{_shared(o)} has layers of a kind that no ranks can share: {', '.join(_kinds(model))}")


def found(model: nn.Module, o: Options, place: Place, ranks: Ranks, *, packed: bool) -> Masks | None:
    """The masks that a model needs beside positions; None where it needs none. All ranks take part.

    Args:
        model: With its first values.
        o: Precision and model.
        place: This rank's.
        ranks: All of them, and the device.
        packed: Whether rows are of several documents.

    Raises:
        BadInputError: The model does not keep documents apart, whatever it is told.
    """
    windows = _windows(model)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[o.dtype]
    masks = None if windows is None else Masks(windows, dtype if _added(model) else None)
    shared = place.parts > 1
    # To say so imports a compiler, which takes seconds.
    with torch.compiler.set_stance("force_eager") if o.compile else nullcontext():
        if shared and _change(model, place, ranks, masks, documents=1) <= _ROUNDING[o.dtype]:
            raise BadInputError(f"{_shared(o)} computes attention in a way of its own, which no ranks can share")
        if not packed:
            return masks if shared else None
        for tried in [masks] if shared else [None, masks]:
            if not _change(model, place, ranks, tried, documents=2) > _ROUNDING[o.dtype]:
                return tried
    raise BadInputError(
        f"--data: {o.model} carries on from one dialogue to the next in a row, so these cannot be packed; give "
        "--unpacked: each has a row of its own then"
    )


@torch.no_grad()
def _change(model: nn.Module, place: Place, ranks: Ranks, masks: Masks | None, *, documents: int) -> float:
    """By what part the answers to the second half of a row change with the first half, which may be the same document.

    Not a number where the model answers with none. A model that does not take such masks keeps nothing apart, and
    shares nothing.
    """
    half = _HALF * place.parts
    inputs = torch.arange(2 * half).repeat(2, 1)
    inputs[1, :half] += 2 * half
    positions = torch.arange(2 * half // documents).repeat(2, documents)
    part = part_of(Packed(inputs % _config(model).vocab_size, inputs, positions), place, masks)
    second = (torch.arange(2 * half).chunk(place.parts)[place.part] >= half).to(ranks.device)
    model.eval()
    try:
        beside = {name: on(ranks.device, value) for name, value in part.beside.items()}
        logits = model(input_ids=part.inputs.to(ranks.device), **beside).logits.float()[:, second]
        change, size = float((logits[0] - logits[1]).abs().sum()), float(logits.abs().sum())
    except (RuntimeError, ValueError, TypeError):
        if masks is None:
            raise
        change, size = math.inf if documents > 1 else 0.0, 1.0
    model.train()
    mesh.shard_again(model)
    return max(change / size if size else 0.0 for change, size in ranks.gather((change, size)))


def _shared(o: Options) -> str:
    return f"--context-parallel {o.context_parallel}: {o.model}"


def on(device: torch.device, value: Any) -> Any:
    """What a model is told, on a device."""
    if isinstance(value, dict):
        return {name: tensor.to(device) for name, tensor in value.items()}
    return value.to(device)


def _config(model: nn.Module) -> Any:
    return model.config


def _added(model: nn.Module) -> bool:
    """Whether masks are added to scores that the model computes itself."""
    return bool(_config(model)._attn_implementation == "eager")


def _kinds(model: nn.Module) -> list[str]:
    return sorted(set(getattr(_config(model), "layer_types", None) or ()))


def _windows(model: nn.Module) -> dict[str, int] | None:
    """See `Masks.windows`; None where a kind of layer is not known."""
    config, kinds = _config(model), _kinds(model)
    window = int(getattr(config, "sliding_window", None) or 0)
    if not set(kinds) <= {_FULL, _SLIDING}:
        return None
    if _SLIDING in kinds:
        return {_FULL: 0, _SLIDING: window}
    return {"": 0 if kinds or getattr(config, "use_sliding_window", True) is False else window}
