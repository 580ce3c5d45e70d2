"""A causal language model over the ranks: tensor parallel within a layer, FSDP2 over the rest, or both.

The ranks form a mesh of replicate x shard x tp. Where each rank holds all of a model, only gradients are averaged. A
model is made on the meta device, and then filled and sharded block by block, so that no rank ever holds more of it than
one block, its embeddings and its own share.
"""

import functools
import math
import textwrap
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._functional_collectives import all_gather_single_autograd
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from stackrt.finetune import lora
from stackrt.train import models
from stackrt.train.errors import BadInputError
from stackrt.train.lm_options import Options
from stackrt.train.ranks import Averaged, Ranks
from stackrt.train.text import mix

Fill = Callable[[str, nn.Module], None]
"""Gives the parameters of a module, known by its name, their first values."""


@dataclass(frozen=True)
class Place:
    """This rank's place in the mesh.

    Attributes:
        reader: Which of the ranks that read different text this one is; those of one tp or context group read the same.
        readers: How many of them there are.
        part: Which part of each sequence it computes, of `parts`.
        parts: How many ranks share a sequence.
        context: The group of those that do; None where none does.
    """

    mesh: DeviceMesh
    reader: int
    readers: int
    part: int
    parts: int
    context: dist.ProcessGroup | None


def lay_out(o: Options, ranks: Ranks) -> Place:
    """Put the ranks into the mesh that the options want."""
    backend = "nccl" if ranks.device.type == "cuda" else "gloo"

    def laid(**sizes: int) -> DeviceMesh:
        override: dict[int | str, Any] = dict.fromkeys(sizes, backend)
        return init_device_mesh(
            ranks.device.type, (*sizes.values(),), mesh_dim_names=(*sizes,), backend_override=override
        )

    readers, parts = o.replicate * o.shard, o.context_parallel
    # Ranks that share a sequence also share the weights: to FSDP they are further ranks to shard over.
    mesh = laid(replicate=o.replicate, shard=o.shard * parts, tp=o.tp)
    context = laid(reader=readers, part=parts, tp=o.tp)["part"].get_group() if parts > 1 else None
    reader, part = divmod(ranks.rank // o.tp, parts)
    return Place(mesh, reader, readers, part, parts, context)


# ---------------------------------------------------------------------------------------------------------------------
# The model


def skeleton(config: models.Config, told: str) -> nn.Module:
    """The model on the meta device: its shapes, and no memory.

    Raises:
        BadInputError: transformers does not know the model, or refuses its configuration.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        made = AutoConfig.for_model(config["model_type"], **(models.plain(config) | {"use_cache": False}))
        with torch.device("meta"):
            model: nn.Module = AutoModelForCausalLM.from_config(made, dtype=torch.float32)
    except Exception as error:  # whatever a configuration class has against its values
        reason = str(error).strip().splitlines()
        short = textwrap.shorten(next(iter(reason), type(error).__name__), 300, placeholder=" …")
        raise BadInputError(f"{told}: transformers cannot make it a causal language model: {short}") from None
    if getattr(made, "is_decoder", None) is False and any(
        getattr(module, "is_causal", True) is False for module in model.modules()
    ):
        raise BadInputError(f"{told}: a token attends to those behind it there, so nothing is left to predict; name a "
                            "decoder, or set is_decoder in its config.json")  # fmt: skip
    return model


@dataclass(frozen=True)
class Plan:
    """How a model is cut.

    Attributes:
        blocks: The model's blocks by name; each is sharded by itself.
        styles: How each module is split over `--tp`.
    """

    blocks: dict[str, nn.Module]
    styles: dict[str, ParallelStyle]

    def inside(self, prefix: str) -> dict[str, ParallelStyle]:
        """The styles below a block, by their names within it."""
        return {name.removeprefix(prefix): way for name, way in self.styles.items() if name.startswith(prefix)}

    def outside(self) -> dict[str, ParallelStyle]:
        """The styles of what is in no block."""
        prefixes = tuple(f"{block}." for block in self.blocks)
        return {name: way for name, way in self.styles.items() if not name.startswith(prefixes)}


def plan(model: nn.Module, config: models.Config, o: Options) -> Plan:
    """How to cut a model, into which adapters are put where they are wanted; every rank comes to the same.

    Raises:
        BadInputError: The model has no plan for `--tp`, no list of blocks, or not the layers to adapt.
    """
    blocks = find_blocks(model, models.shape(config).layers)
    if o.lora:
        lora.put_in(model, o, blocks)
    styles = tensor_plan(model, o) if o.tp > 1 else {}
    return Plan(blocks, styles)


def build(
    model: nn.Module, plan: Plan, o: Options, place: Place, ranks: Ranks, fill: Fill | None
) -> tuple[nn.Module, Averaged | None]:
    """The sharded model, with its first values; and what averages its gradients, where it is not sharded at all.

    Args:
        model: The model on the meta device.
        plan: How it is cut.
        o: The mesh, precision and recomputation that are wanted.
        place: This rank's.
        ranks: The device.
        fill: Overwrites the random values, module by module; None keeps them. Random values depend on the seed and the
            parameter's module alone, so every mesh begins with the same.
    """
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16 if o.dtype == "bf16" else None, reduce_dtype=torch.float32)
    copies = place.mesh["replicate", "shard"] if o.replicate > 1 else place.mesh["shard"]
    # FSDP2 would copy all gradients once more, and wait for the other ranks after each block. But it casts for bf16,
    # and knows how to sum what is split over tp.
    whole = place.mesh["shard"].size() == 1 and o.tp == 1 and o.dtype == "fp32"

    def made(name: str, module: nn.Module, recurse: bool) -> None:
        first_values(model, name, module, o.seed, ranks.device, recurse=recurse)
        if fill:
            fill(name, module)
        lora.first_values(name, module, o.seed)

    def split(module: nn.Module, own: dict[str, ParallelStyle]) -> None:
        if own:
            parallelize_module(module, place.mesh["tp"], own, src_data_rank=None)

    # The output of a tensor-parallel layer is a view; nothing here changes it in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    with torch.no_grad():
        for name, block in plan.blocks.items():
            made(name, block, recurse=True)
            split(block, plan.inside(f"{name}."))
            if o.compile:
                block.compile()
            if not whole:
                fully_shard(block, mesh=copies, mp_policy=policy)
        inside = {module for block in plan.blocks.values() for module in block.modules()}
        for name, module in model.named_modules():
            if module not in inside and (module._parameters or module._buffers):
                made(name, module, recurse=False)
        model.tie_weights()  # type: ignore[operator]  # filled one by one, they came apart
        split(model, plan.outside())
        if not whole:
            fully_shard(model, mesh=copies, mp_policy=policy)
    if place.context:
        _share_context(model, place.context)
    _recompute(model, o.ac)
    averaged = None
    if whole and o.replicate > 1:
        trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
        averaged = Averaged(trained, place.mesh["replicate"].get_group())
    return model.train(), averaged


@torch.no_grad()
def first_values(
    model: nn.Module, name: str, module: nn.Module, seed: int, device: torch.device, *, recurse: bool = True
) -> None:
    """Bring a module of a model from the meta device, with random values that depend on the seed and its name alone."""
    module.to_empty(device=device, recurse=recurse)
    torch.manual_seed(mix(seed, "weights", name))
    initialize: Any = model._init_weights
    module.apply(initialize) if recurse else initialize(module)


def find_blocks(model: nn.Module, layers: int) -> dict[str, nn.Module]:
    """A model's blocks by name: the list of modules that is as long as the model is deep."""
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == layers:
            return {f"{name}.{number}": block for number, block in enumerate(module)}
    raise BadInputError(f"--model: a {type(model).__name__} has no list of {layers} blocks that could be sharded")


# What transformers calls a way to split a layer, and PyTorch's style for it. A norm within a head sees [batch, tokens,
# heads, size], of which each rank has some heads: as a sequence-parallel one over dimension 2, its gradient is summed.
_STYLES: dict[str, Callable[[], ParallelStyle]] = {
    "colwise": ColwiseParallel,
    "rowwise": RowwiseParallel,
    "colwise_gather_output": lambda: ColwiseParallel(output_layouts=Replicate()),
    "replicated_with_grad_allreduce": lambda: SequenceParallel(sequence_dim=2, use_local_output=True),
}


def tensor_plan(model: nn.Module, o: Options) -> dict[str, ParallelStyle]:
    """How each module is split over `--tp`, by the plan that the model brings.

    Raises:
        BadInputError: It brings none, or asks for what is not known here.
    """
    wanted: Mapping[str, str] = getattr(model, "_tp_plan", None) or {}
    if not wanted:
        raise BadInputError(f"--tp {o.tp}: transformers has no tensor-parallel plan for {o.model}; use --tp 1")
    config: Any = model.config
    tied = config.tie_word_embeddings
    plan: dict[str, ParallelStyle] = {}
    for name, module in model.named_modules():
        way = next((way for pattern, way in wanted.items() if fnmatchcase(name, pattern)), None)
        # The embeddings stay whole within a tp group, as does an output layer that is tied to them: FSDP shards them.
        if way in (None, "embedding_rowwise") or (tied and name == "lm_head"):
            continue
        if way not in _STYLES:
            raise BadInputError(f"--tp {o.tp}: {o.model} wants {name} split as {way!r}, which is not known here")
        plan |= lora.split(name, _STYLES[way](), module)
    return plan


# ---------------------------------------------------------------------------------------------------------------------
# Context parallel


def _share_context(model: nn.Module, group: dist.ProcessGroup) -> None:
    """Let each rank's queries attend to all keys and values of a sequence, gathered layer by layer."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **more: Any
    ) -> tuple[Tensor, None]:
        key, value = (all_gather_single_autograd(held.contiguous(), 2, group) for held in (key, value))
        attended: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, mask, **more)
        return attended

    AttentionInterface.register(_SHARED, attention)
    AttentionMaskInterface.register(_SHARED, sdpa_mask)  # ours comes with the batch, and is taken as it is
    model.set_attn_implementation(_SHARED)  # type: ignore[operator]


_SHARED = "shared_context"

# ---------------------------------------------------------------------------------------------------------------------
# Recomputation

_KEPT = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten._grouped_mm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
}


def _policy(_context: object, op: object, *_args: object, **_kwargs: object) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if op in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE


def _recompute(model: nn.Module, how: str) -> None:
    """Recompute blocks in the backward pass: all of them, or all but their matrix products and attention."""
    if how == "none":
        return
    arguments: dict[str, Any] = {"use_reentrant": False}
    if how == "selective":
        arguments["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _policy)
    model.activation_checkpointing_enable(arguments)  # type: ignore[operator]


# ---------------------------------------------------------------------------------------------------------------------
# Over all ranks


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, on every rank; a collective."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def copies_of(parameter: Tensor, world_size: int) -> int:
    """How many ranks hold the same part of a parameter."""
    if not isinstance(parameter, DTensor):
        return world_size
    mesh = parameter.device_mesh
    parts = math.prod(mesh.size(dim) for dim, kind in enumerate(parameter.placements) if not kind.is_replicate())
    return world_size // parts


@torch.no_grad()
def clip_by_norm(
    parameters: Iterable[Tensor], most: float, ranks: Ranks, copies: Callable[[Tensor, int], int] = copies_of
) -> Tensor:
    """Scale gradients down to a norm over all ranks' parts, each counted once; returns the norm before.

    Args:
        parameters: This rank's.
        most: The largest norm; 0 scales nothing.
        ranks: All of them take part.
        copies: How many ranks hold the same part of a parameter, of so many.
    """
    held = [(p, local(p.grad)) for p in parameters if p.grad is not None]
    norms = torch.stack(torch._foreach_norm([gradient for _, gradient in held])).double()
    holders = [copies(p, ranks.world_size) for p, _ in held]
    if min(holders) == ranks.world_size:  # each rank has all of them, and needs no other to know the norm
        norm = norms.square().sum().sqrt()
    else:
        shares = torch.tensor([1 / count for count in holders], dtype=torch.float64)
        total = (norms.square() * shares.to(norms.device)).sum()
        dist.all_reduce(total, group=ranks.gradients)
        norm = total.sqrt()
    if most:
        factor = (most / (norm + 1e-6)).clamp(max=1.0).float()
        torch._foreach_mul_([gradient for _, gradient in held], factor)
    return norm


def share_bytes(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes of weights, gradients and moments that this rank holds, between two steps."""
    held = [tensor for p in model.parameters() for tensor in (p, p.grad) if tensor is not None]
    held += [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    storages = [local(tensor).untyped_storage() for tensor in held]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())  # gradients may share one


def sync_gradients(model: nn.Module, averaged: Averaged | None, wanted: bool) -> None:
    """Whether the next backward pass sums gradients over the ranks; without, they only add up."""
    if averaged:
        averaged.wanted = wanted
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(wanted)


def shard_again(model: nn.Module) -> None:
    """After a forward pass without a backward one: the outermost parameters would stay whole until the next step."""
    if isinstance(model, FSDPModule):
        model.reshard()
