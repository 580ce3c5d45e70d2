"""Training after training: prune, round or distill a model, then let it learn to live with that."""

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from stackrt.compress.options import Options
from stackrt.finished import quantized
from stackrt.train import models
from stackrt.train.errors import BadInputError, TrainerError
from stackrt.train.process import build_optimizer, learning_rate
from stackrt.train.text import Batch, Order, mix

Loss = Callable[[nn.Module, Batch], Tensor]
Say = Callable[[str], None]


def token_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy of each next token, in nats."""
    logits = model(input_ids=batch.inputs).logits
    return F.cross_entropy(logits.float().flatten(0, 1), batch.targets.flatten())


def train(
    model: nn.Module, loss_of: Loss, windows: Order, o: Options, say: Say, after: Callable[[], None] = lambda: None
) -> None:
    """Train all parameters of a model.

    Args:
        model: Left in eval mode.
        loss_of: What is made small.
        windows: The training order; a method begins it anew, from another place for each seed.
        o: Steps, rate and batch.
        say: Prints.
        after: Called after each step.

    Raises:
        TrainerError: The loss is not finite.
    """
    device = next(model.parameters()).device
    model.train().requires_grad_(True)
    optimizer = build_optimizer(model.parameters(), o)
    first = mix(o.seed, "compress") % 1_000_003
    for step in range(o.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, o)
        batch = Batch(*(side.to(device) for side in windows.batch(first + step * o.batch_size, o.batch_size)))
        loss = loss_of(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), o.clip or math.inf)
        optimizer.step()
        optimizer.zero_grad()
        after()
        if (step + 1) % max(1, o.steps // 4) == 0:
            if not math.isfinite(now := float(loss.detach())):
                raise TrainerError(f"the loss is {now} at step {step + 1}; try a lower --lr")
            say(f"  step {step + 1}/{o.steps}  loss {now:.3f}")
    model.eval().requires_grad_(False)


# ---------------------------------------------------------------------------------------------------------------------
# Pruning


def matrices(model: nn.Module) -> list[Tensor]:
    """The matrices between embeddings and output."""
    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    kept = (module for module in model.modules() if module is not head and not isinstance(module, nn.Embedding))
    weights: list[Any] = [module._parameters.get("weight") for module in kept]
    return [weight for weight in weights if weight is not None and weight.dim() == 2]


def prune(model: nn.Module, windows: Order, o: Options, say: Say) -> None:
    """Set the smallest weights of each matrix to zero, and train the others; what is zero stays so."""
    weights = matrices(model)
    masks = []
    for weight in weights:
        count = int(weight.numel() * o.amount)
        order = weight.detach().abs().flatten().argsort()
        mask = torch.ones_like(order, dtype=torch.bool)
        mask[order[:count]] = False
        masks.append(mask.view_as(weight))

    @torch.no_grad()
    def again() -> None:
        for weight, mask in zip(weights, masks, strict=True):
            weight.mul_(mask)

    again()
    train(model, token_loss, windows, o, say, again)


# The layers of a block's MLP, by the names that transformers gives them: what goes in (each row, or of GPT-2's
# transposed Conv1D each column, is a neuron), what comes out, and the configuration's name of their number.
_MLPS = ((("c_fc",), "c_proj", "n_inner"), (("gate_proj", "up_proj"), "down_proj", "intermediate_size"))


@torch.no_grad()
def without_neurons(model: nn.Module, amount: float) -> nn.Module:
    """The model with fewer inner neurons in each block: those with the smallest weights in and out are taken out.

    Raises:
        BadInputError: The model's MLPs are of a kind that is not known here.
    """
    config: Any = model.config
    state = model.state_dict()
    for ins, out, setting in _MLPS:
        blocks = [name for name, module in model.named_modules() if all(hasattr(module, part) for part in (*ins, out))]
        blocks = [name for name in blocks if name.endswith("mlp")]
        if not blocks:
            continue
        transposed = ins == ("c_fc",)
        kept = 0
        for block in blocks:
            into = [state[f"{block}.{name}.weight"] for name in ins]
            into = [weight.t() if transposed else weight for weight in into]  # [neurons, width]
            onward = state[f"{block}.{out}.weight"]
            onward = onward.t() if transposed else onward  # [width, neurons]
            strength = torch.stack([weight.norm(dim=1) for weight in into]).prod(0) * onward.norm(dim=0)
            kept = max(1, round(len(strength) * (1 - amount)))
            chosen = strength.topk(kept).indices.sort().values
            for name, weight in zip(ins, into, strict=True):
                rows = weight[chosen]
                state[f"{block}.{name}.weight"] = (rows.t() if transposed else rows).contiguous()
                if (bias := state.get(f"{block}.{name}.bias")) is not None:
                    state[f"{block}.{name}.bias"] = bias[chosen]
            columns = onward[:, chosen]
            state[f"{block}.{out}.weight"] = (columns.t() if transposed else columns).contiguous()
        smaller = _like(config, **{setting: kept})
        smaller.load_state_dict(state)
        return smaller.to(next(iter(state.values())).device)
    raise BadInputError(f"--method prune-structured: does not know the blocks of a {type(model).__name__}")


# ---------------------------------------------------------------------------------------------------------------------
# Rounding in training


def train_rounded(model: nn.Module, windows: Order, o: Options, say: Say) -> None:
    """Train a model whose matrices are rounded to four bits in each forward pass, as they will be for good."""
    from torchao.quantization import quantize_
    from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig

    quantized.as_linears(model)
    wanted = set(map(id, matrices(model)))

    def chosen(module: nn.Module, _name: str) -> bool:
        return isinstance(module, nn.Linear) and id(module.weight) in wanted

    rounded = IntxFakeQuantizeConfig(quantized.FOUR_BITS, group_size=quantized.GROUP, is_symmetric=True)
    quantize_(model, QATConfig(weight_config=rounded, step="prepare"), chosen)
    train(model, token_loss, windows, o, say)
    quantize_(model, QATConfig(step="convert"))


# ---------------------------------------------------------------------------------------------------------------------
# Distillation


def student_of(config: models.Config, o: Options) -> nn.Module:
    """A smaller model of the teacher's kind, with random weights.

    Raises:
        BadInputError: Its shape cannot work.
    """
    size = models.shape(config)
    layers = o.student_layers or max(1, size.layers // 2)
    width = o.student_width or max(size.head_size, size.width // 2 // size.head_size * size.head_size)
    heads = o.student_heads or max(1, width // size.head_size)
    if width % heads:
        raise BadInputError(f"--student-heads {heads}: must divide --student-width ({width})")
    values = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
    gpt2 = {"n_layer": layers, "n_embd": width, "n_head": heads, "n_inner": None}
    kv_heads = max(1, heads * size.kv_heads // size.heads)
    inner = max(8, size.intermediate * width // size.width // 8 * 8)
    more = {"num_key_value_heads": kv_heads, "intermediate_size": inner, "head_dim": width // heads}
    changed = gpt2 if "n_embd" in config else values | {key: more[key] for key in more if key in config}
    changed |= {"layer_types": None} if "layer_types" in config else {}
    torch.manual_seed(mix(o.seed, "weights"))
    from transformers import AutoConfig

    known = {key: value for key, value in config.items() if key not in ("model_type", "dtype", "torch_dtype")}
    try:
        return _made(AutoConfig.for_model(config["model_type"], **(known | changed)))
    except Exception as error:  # whatever a configuration class has against its values
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInputError(f"--student-…: transformers cannot make such a student: {reason}") from None


def see_that_smaller(student: nn.Module, teacher: nn.Module) -> None:
    """See that a student has fewer parameters than its teacher.

    Raises:
        BadInputError: It has not.
    """
    mine, its = (sum(p.numel() for p in model.parameters()) for model in (student, teacher))
    if mine >= its:
        raise BadInputError(
            f"--student-layers, --student-width: the student has {mine:,} parameters, and its teacher {its:,}; "
            "give fewer layers, or less width"
        )


def distill(student: nn.Module, teacher: nn.Module, windows: Order, o: Options, say: Say) -> None:
    """Train a student to give the teacher's probabilities (Hinton et al. 2015), and the text's next tokens."""
    teacher.eval()

    def loss_of(model: nn.Module, batch: Batch) -> Tensor:
        with torch.no_grad():
            wanted = teacher(input_ids=batch.inputs).logits.float().flatten(0, 1)
        logits = model(input_ids=batch.inputs).logits.float().flatten(0, 1)
        soft, target = (F.log_softmax(side / o.temperature, -1) for side in (logits, wanted))
        # Softened gradients are smaller by the temperature's square.
        apart = F.kl_div(soft, target, log_target=True, reduction="batchmean") * o.temperature**2
        return o.mix * apart + (1 - o.mix) * F.cross_entropy(logits, batch.targets.flatten())

    train(student, loss_of, windows, o, say)


def _like(config: Any, **changes: Any) -> nn.Module:
    """A model of a configuration with some values changed."""
    return _made(type(config)(**{**config.to_dict(), **changes}))


def _made(config: Any) -> nn.Module:
    with suppress(AttributeError):
        config.use_cache = True
    model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    return model
