"""LoRA (Hu et al. 2021) by peft, within a sharded model: the base is frozen, and small matrices beside it are trained.

A layer W becomes W + scale x B A, with A and B of a low rank. peft puts them into the model on the meta device; here
they get their first values, are merged into W when a model is exported, or are left as an adapter that peft loads.
"""

import json
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel

from stackrt.train import experts
from stackrt.train.errors import BadInputError
from stackrt.train.lm_options import ALL_LINEAR, Options
from stackrt.train.ranks import Ranks
from stackrt.train.report import write_atomically, writing
from stackrt.train.text import mix

_NAME = "default"  # peft's name for a model's only adapter
_BASE = ".base_layer."
_A, _B = f".lora_A.{_NAME}.", f".lora_B.{_NAME}."


@dataclass(frozen=True)
class Adapter:
    """What is added to a weight.

    Attributes:
        weight: The weight's name in the model without adapters.
        a: Name of A, [rank, in].
        b: Name of B, [out, rank].
        scale: Factor of B A.
        transposed: Whether the weight is [in, out], as GPT-2's are.
    """

    weight: str
    a: str
    b: str
    scale: float
    transposed: bool

    def delta(self, a: Tensor, b: Tensor) -> Tensor:
        """What is added, given both matrices whole."""
        product = (b @ a) * self.scale
        return product.T if self.transposed else product


def put_in(model: nn.Module, o: Options, blocks: Iterable[str]) -> None:
    """Freeze a model on the meta device, and put adapters beside its layers.

    Args:
        model: On the meta device.
        o: The rank, the scale, and which layers.
        blocks: Names of the blocks, outside of which no layer is adapted.

    Raises:
        BadInputError: The model has no such layers, or they are of another kind.
    """
    from peft import inject_adapter_in_model
    from transformers.pytorch_utils import Conv1D

    blocks = list(blocks)
    config = peft_config(o)
    if mixed := _mixed(model, blocks):
        config.target_modules = _beside_experts(model, o, blocks, mixed)
    config.fan_in_fan_out = any(isinstance(module, Conv1D) for module in model.modules())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tied layers, which are refused below
            inject_adapter_in_model(config, model, _NAME, low_cpu_mem_usage=True)
    except (ValueError, TypeError) as error:
        if o.lora_targets == (ALL_LINEAR,):  # as for Mamba, of which peft takes none by itself
            raise BadInputError(f"--lora {o.lora}: peft adapts no layer of {o.model} by itself; name some with "
                                "--lora-targets") from None  # fmt: skip
        raise BadInputError(f"--lora-targets {' '.join(o.lora_targets)}: {str(error).splitlines()[0]}") from None
    inside = tuple(f"{name}." for name in blocks)
    layers = [adapter.weight.removesuffix(".weight") for adapter in adapters(model)]
    for layer in layers:
        if not f"{layer}.".startswith(inside):
            raise BadInputError(f"--lora-targets {' '.join(o.lora_targets)}: {layer} is not in a block; name others")
    for target in o.lora_targets:
        if target != ALL_LINEAR and not any(f".{layer}".endswith(f".{target}") for layer in layers):
            raise BadInputError(f"--lora-targets {target}: no layer of the model ends in that")


def _mixed(model: nn.Module, blocks: Iterable[str]) -> set[str]:
    """The part of a block, such as `mlp`, that has experts; empty in a model without."""
    inside = [name.removeprefix(f"{block}.") for name in experts.tensors(model) for block in blocks
              if name.startswith(f"{block}.")]  # fmt: skip
    return {name.partition(".")[0] for name in inside}


def _beside_experts(model: nn.Module, o: Options, blocks: Iterable[str], mixed: set[str]) -> list[str]:
    """The layers that are wanted, in a model with experts: peft takes those that are named as an expert's for them.

    Raises:
        BadInputError: A layer among the experts is wanted.
    """
    within: dict[bool, set[str]] = {True: set(), False: set()}
    for block in blocks:
        for name, module in model.get_submodule(block).named_modules():
            if isinstance(module, nn.Linear):
                within[name.partition(".")[0] in mixed].add(name.rpartition(".")[2])
    free = sorted(within[False] - within[True])
    if o.lora_targets == (ALL_LINEAR,):
        return free
    for target in o.lora_targets:
        if target.rpartition(".")[2] not in free:
            raise BadInputError(
                f"--lora-targets {target}: of a model with experts these layers can be adapted: {', '.join(free)}"
            )
    return list(o.lora_targets)


def peft_config(o: Options) -> Any:
    """The adapters that the options want, as peft has it."""
    from peft import LoraConfig

    targets: Any = ALL_LINEAR if o.lora_targets == (ALL_LINEAR,) else list(o.lora_targets)
    return LoraConfig(
        r=o.lora, lora_alpha=o.lora_alpha, target_modules=targets, lora_dropout=0.0, bias="none",
        task_type="CAUSAL_LM", base_model_name_or_path=o.init,
    )  # fmt: skip


def adapters(model: nn.Module) -> list[Adapter]:
    """All adapters of a model; none where there are none."""
    found = []
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and hasattr(module, "scaling"):
            layer: Any = module
            found.append(Adapter(f"{name}.weight", f"{name}{_A}weight", f"{name}{_B}weight",
                                 float(layer.scaling[_NAME]), bool(layer.fan_in_fan_out)))  # fmt: skip
    return found


def plain(name: str) -> str:
    """A parameter's name in the model without adapters."""
    return name.replace(_BASE, ".")


def is_adapter(name: str) -> bool:
    """Whether a parameter is an adapter's."""
    return _A in name or _B in name


@torch.no_grad()
def first_values(prefix: str, module: nn.Module, seed: int) -> None:
    """Give the adapters of a module their first values: A random, by the seed and its name alone, and B zero."""
    for name, parameter in module.named_parameters():
        full = f"{prefix}.{name}" if prefix else name
        if parameter.is_meta or not is_adapter(full):
            continue
        torch.manual_seed(mix(seed, "lora", full))
        if _A in full:
            nn.init.kaiming_uniform_(parameter, a=math.sqrt(5))
        else:
            parameter.zero_()


def split(name: str, style: ParallelStyle, module: nn.Module) -> dict[str, ParallelStyle]:
    """How a layer with an adapter is split over tensor-parallel ranks, given how it would be without.

    Where the output is split, so is B's; where the input is, so is A's. The small rest is computed on each rank.
    """
    if not hasattr(module, "lora_A"):
        return {name: style}
    if isinstance(style, RowwiseParallel):
        return {f"{name}.base_layer": style, f"{name}.lora_A.{_NAME}": RowwiseParallel()}
    return {f"{name}.base_layer": style, f"{name}.lora_B.{_NAME}": ColwiseParallel()}


def export(model: nn.Module, o: Options, ranks: Ranks) -> None:
    """Write `--export-adapter`, a folder that peft loads beside the base.

    Raises:
        TrainerError: The disk is full or failing.
    """
    from stackrt.train import exported, weights

    parameters = {name: p for name, p in model.named_parameters() if is_adapter(name)}
    tensors = dict(weights.whole_tensors(parameters, parameters, ranks.first))
    with ranks.together():
        if ranks.first:
            folder = Path(o.export_adapter)
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                named = {f"base_model.model.{name.replace(f'.{_NAME}.', '.')}": t for name, t in tensors.items()}
                exported.replace_file(named, folder / "adapter_model.safetensors")
                _describe(model, o, folder)


def _describe(model: nn.Module, o: Options, folder: Path) -> None:
    config = peft_config(o)
    adapted = adapters(model)
    config.fan_in_fan_out = any(adapter.transposed for adapter in adapted)
    config.inference_mode = True
    # The layers by their last names, so that whoever loads it needs no rule of ours.
    config.target_modules = sorted({adapter.weight.split(".")[-2] for adapter in adapted})
    values = config.to_dict()
    sets = {key: sorted(value) for key, value in values.items() if isinstance(value, set)}
    write_atomically(folder / "adapter_config.json", json.dumps(values | sets, indent=2, default=str) + "\n")
