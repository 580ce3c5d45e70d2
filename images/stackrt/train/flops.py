"""How much of a GPU's arithmetic a model's training uses: MFU, as in the PaLM paper (Chowdhery et al. 2022, app. B)."""

import torch

from stackrt import skus
from stackrt.train import models


def per_token(parameters: int, trained: int, shape: models.Shape, context: int, tied: bool, *, idle: int = 0) -> float:
    """Floating-point operations of forward and backward for one token: 6 N + 12 L H Q T.

    A weight that is not trained needs no gradient of its own, which is a third of the 6.

    Args:
        parameters: All of them; an input embedding that is not also the output layer is looked up, and not multiplied.
        trained: Those that are trained.
        shape: Layers L, heads H and head size Q.
        context: T.
        tied: Whether the embedding is also the output layer.
        idle: Of the parameters those that do not compute this token, see `experts.idle`.
    """
    multiplied = parameters - idle - (0 if tied else shape.vocabulary * shape.width)
    learned = multiplied if trained == parameters else trained
    return 4 * multiplied + 2 * learned + 12 * shape.layers * shape.heads * shape.head_size * context


def peak(device: torch.device) -> float | None:
    """The stated bf16 operations a second of this GPU; None for a CPU and for a GPU without figures."""
    if device.type != "cuda":
        return None
    return skus.of(torch.cuda.get_device_name(device)).bf16_peak_tflop_per_s * 1e12 or None
