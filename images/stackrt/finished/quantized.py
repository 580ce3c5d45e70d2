"""Matrices of small integers: made by torchao, written to a safetensors file as plain integers and scales.

A row of a matrix is one scale and its integers; with four bits each 32 of a row have a scale, and two numbers share a
byte. Embeddings have eight bits in every scheme, and an output layer that is tied to them uses the same integers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from stackrt.train import paths
from stackrt.train.errors import BadInputError

FILE = "quantized.safetensors"
GROUP = 32
FOUR_BITS: torch.dtype = getattr(torch, "int4")  # noqa: B009 - its stubs do not know it


@dataclass(frozen=True)
class Scheme:
    """How the matrices between embeddings and output are rounded.

    Attributes:
        bits: Of each weight.
        dynamic: Whether what is multiplied with them is rounded to eight bits as well, row by row as it comes.
    """

    bits: int
    dynamic: bool = False


@cache
def _torchao() -> Any:
    """torchao's quantization, imported when it is used."""
    import torchao.quantization

    return torchao.quantization


SCHEMES = {"int8": Scheme(8), "int8-dynamic": Scheme(8, dynamic=True), "int4": Scheme(4)}


class Int8Embedding(nn.Module):
    """An embedding table of eight bits a number, with a scale a row; torchao's own tensor has no look-up.

    Args:
        qdata: int8, [rows, width].
        scale: [rows, 1].
    """

    def __init__(self, qdata: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("qdata", qdata)
        self.register_buffer("scale", scale)
        self.qdata: Tensor
        self.scale: Tensor

    def forward(self, ids: Tensor) -> Tensor:
        """The rows of some ids."""
        return self.qdata[ids].to(self.scale.dtype) * self.scale[ids]


def as_linears(model: nn.Module) -> nn.Module:
    """Put an `nn.Linear`, which torchao knows, in the place of each of GPT-2's Conv1D, its transpose."""
    for name, module in list(model.named_modules()):
        if isinstance(module, Conv1D):
            rows, columns = module.weight.shape
            with torch.device("meta"):
                linear = nn.Linear(rows, columns)
            linear.weight = nn.Parameter(module.weight.detach().t().contiguous())
            linear.bias = module.bias
            _put(model, name, linear)
    return model


def quantize(model: nn.Module, scheme: str) -> nn.Module:
    """Round the matrices of a model, in place.

    Raises:
        BadInputError: A matrix's rows cannot be cut into groups.
    """
    as_linears(model)
    how = SCHEMES[scheme]
    head = _tied_head(model)
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for name, module in linears.items():
        if how.bits == 4 and module is not head and module.in_features % GROUP:
            raise BadInputError(f"{scheme}: {name} has rows of {module.in_features}, no multiple of {GROUP}")
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Embedding):
            held = _torchao().Int8Tensor.from_hp(
                module.weight.detach().float(), _torchao().Int8WeightOnlyConfig().granularity
            )
            _put(model, name, Int8Embedding(held.qdata, held.scale))
    for module in linears.values():
        if module is head:
            continue
        module.weight.requires_grad_(False)
        _torchao().quantize_(module, _config(how))
    _tie(model, head, how)
    return model


def save(model: nn.Module, path: Path) -> None:
    """Write the tensors of a quantized model into a folder."""
    head = _tied_head(model)
    left_out = next((f"{name}.weight" for name, module in model.named_modules() if module is head), None)
    tensors: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if name == left_out:
            continue
        if isinstance(value, (_torchao().Int8Tensor, _torchao().IntxUnpackedToInt8Tensor)):
            owner = name.removesuffix("weight")
            four = isinstance(value, _torchao().IntxUnpackedToInt8Tensor)
            tensors[f"{owner}qdata"] = _pack(value.qdata) if four else value.qdata
            tensors[f"{owner}scale"] = value.scale
        else:
            tensors[name] = value
    save_file({name: value.detach().contiguous() for name, value in tensors.items()}, path / FILE)


@contextmanager
def saving(folder: Path) -> Iterator[None]:
    """While files are written into a folder by safetensors, which wraps what the system said in an error of its own.

    Raises:
        OSError: The disk is full or failing.
    """
    try:
        yield
        paths.open_to_others(folder.glob("*.safetensors"))
    except SafetensorError as error:
        raise OSError(0, str(error)) from None


def fill(model: nn.Module, path: Path, scheme: str, told: str) -> None:
    """Give a model, which may be on the meta device, the tensors of a folder.

    Raises:
        BadInputError: The file is damaged, or another model's.
    """
    if scheme not in SCHEMES:
        raise BadInputError(f"{told}: is of scheme {scheme}, and this program knows {', '.join(SCHEMES)}")
    how = SCHEMES[scheme]
    try:
        tensors = load_file(path / FILE)
    except (SafetensorError, OSError) as error:
        raise BadInputError(f"{told}: {FILE}: damaged or not readable: {error}") from None
    as_linears(model)
    head = _tied_head(model)

    def take(name: str, shape: tuple[int, ...]) -> Tensor:
        held = tensors.pop(name, None)
        if held is None or tuple(held.shape) != shape:
            has = "is not there" if held is None else f"has shape {list(held.shape)}, not {list(shape)}"
            raise BadInputError(f"{told}: {FILE} is another model's than config.json says: {name} {has}")
        return held

    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Embedding):
            rows, width = module.weight.shape
            table = Int8Embedding(take(f"{name}.qdata", (rows, width)), take(f"{name}.scale", (rows, 1)))
            _put(model, name, table)
        elif isinstance(module, nn.Linear) and module is not head:
            rows, width = module.weight.shape
            packed = (rows, width // 2) if how.bits == 4 else (rows, width)
            scales = (rows, width // GROUP) if how.bits == 4 else (rows, 1)
            qdata, scale = take(f"{name}.qdata", packed), take(f"{name}.scale", scales)
            module.weight = nn.Parameter(_weight(qdata, scale, how), requires_grad=False)
    for name, value in list(model.state_dict().items()):
        owner, _, last = name.rpartition(".")
        module = model.get_submodule(owner)
        if value.is_meta and not (module is head and last == "weight"):
            tensor = take(name, tuple(value.shape))
            if last in module._parameters:
                setattr(module, last, nn.Parameter(tensor, requires_grad=False))
            else:
                module.register_buffer(last, tensor)
    _tie(model, head, how)


def _config(how: Scheme) -> Any:
    if how.bits == 4:
        return _torchao().IntxWeightOnlyConfig(weight_dtype=FOUR_BITS, granularity=_torchao().PerGroup(GROUP))
    kind = _torchao().Int8DynamicActivationInt8WeightConfig if how.dynamic else _torchao().Int8WeightOnlyConfig
    return kind(set_inductor_config=False)


def _weight(qdata: Tensor, scale: Tensor, how: Scheme) -> Tensor:
    """torchao's tensor of integers and scales, as `quantize_` makes it."""
    if how.bits == 4:
        zero = torch.zeros(scale.shape, dtype=torch.int8)
        kind = _torchao().IntxUnpackedToInt8Tensor
        weight: Tensor = kind(_unpack(qdata), scale, zero, FOUR_BITS, (1, GROUP), scale.dtype, None)
        return weight
    activations = _activations() if how.dynamic else None
    eight: Tensor = _torchao().Int8Tensor(qdata, scale, [1, qdata.shape[1]], scale.dtype, act_quant_kwargs=activations)
    return eight


def _activations() -> Any:
    """How torchao rounds what is multiplied, read from a weight that it has quantized."""
    probe = nn.Linear(16, 16)
    _torchao().quantize_(probe, _config(SCHEMES["int8-dynamic"]))
    weight: Any = probe.weight
    return weight.act_quant_kwargs


def _tied_head(model: nn.Module) -> nn.Linear | None:
    """The output layer, if it shares its weights with the embeddings."""
    config: Any = model.config
    head: Any = model.get_output_embeddings() if config.tie_word_embeddings else None  # type: ignore[operator]
    return head if isinstance(head, nn.Linear) else None


def _tie(model: nn.Module, head: nn.Linear | None, how: Scheme) -> None:
    if head is not None:
        table: Any = model.get_input_embeddings()  # type: ignore[operator]
        eight = Scheme(8, how.dynamic)
        head.weight = nn.Parameter(_weight(table.qdata, table.scale, eight), requires_grad=False)


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    owner, _, last = name.rpartition(".")
    setattr(model.get_submodule(owner), last, module)


def _pack(qdata: Tensor) -> Tensor:
    """Numbers from -8 to 7, two in a byte."""
    nibbles = (qdata + 8).to(torch.uint8)
    return nibbles[:, 0::2] | (nibbles[:, 1::2] << 4)


def _unpack(packed: Tensor) -> Tensor:
    nibbles = torch.stack([packed & 15, packed >> 4], dim=-1).flatten(1)
    return nibbles.to(torch.int8) - 8
