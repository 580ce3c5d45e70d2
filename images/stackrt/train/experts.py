"""The experts of a model: tensors of three dimensions, of which the first counts them."""

from typing import Any

from torch import Tensor, nn

from stackrt.train import models


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """A model's experts by name, as many as its configuration says; it may be on meta."""
    count = _shape(model).experts
    return {name: p for name, p in model.named_parameters() if count and p.ndim == 3 and p.shape[0] == count}


def idle(model: nn.Module) -> int:
    """Parameters that do not compute a token: those of the experts that it is not sent to."""
    shape = _shape(model)
    held = sum(tensor.numel() for tensor in tensors(model).values())
    return held * (shape.experts - shape.chosen) // max(shape.experts, 1)


def _shape(model: nn.Module) -> models.Shape:
    config: Any = model.config
    return models.shape(config.to_dict())
