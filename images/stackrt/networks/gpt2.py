"""GPT-2 (Radford et al. 2019) in plain torch: Hugging Face's names, configuration and numbers.

    model = GPT2LMHeadModel({"vocab_size": 256, "n_positions": 64, "n_embd": 128, "n_layer": 3, "n_head": 4})
    model(input_ids).logits

Their class computes the same. It brings a library for every model and way to generate, which takes a third of a rank's
start, and computes the activation in eight passes over memory where one does.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

DEFAULTS: dict[str, Any] = {
    "n_inner": None,
    "layer_norm_epsilon": 1e-5,
    "initializer_range": 0.02,
    "embd_pdrop": 0.1,
    "resid_pdrop": 0.1,
    "attn_pdrop": 0.1,
}
"""Of what a configuration may leave out: as transformers has it."""
_FIXED = {
    "activation_function": "gelu_new",
    "add_cross_attention": False,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "tie_word_embeddings": True,
}
_ALIASES = {"hidden_size", "max_position_embeddings", "num_attention_heads", "num_hidden_layers"}


def computes(config: Mapping[str, Any]) -> bool:
    """Whether the model of a configuration is one of these; transformers makes the others."""
    numbers = (config.get(name, value) for name, value in DEFAULTS.items() if value is not None)
    return (
        all(config.get(name, value) == value for name, value in _FIXED.items())
        and all(isinstance(number, float | int) for number in numbers)
        and not _ALIASES & config.keys()
    )


class Output(NamedTuple):
    """Scores of each next token, [batch, context, vocabulary]."""

    logits: Tensor


class Conv1D(nn.Module):
    """A linear layer whose weight is [in, out]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs).normal_())
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[…, in] to […, out]."""
        return torch.addmm(self.bias, x.flatten(0, -2), self.weight).view(*x.shape[:-1], -1)


class Attention(nn.Module):
    """Each token attends to itself and those before it."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width = config["n_embd"]
        self.heads, self.dropout = config["n_head"], config["attn_pdrop"]
        self.c_attn = Conv1D(width, 3 * width)
        self.c_proj = Conv1D(width, width)
        self.resid_dropout = nn.Dropout(config["resid_pdrop"])

    def forward(self, x: Tensor) -> Tensor:
        """[batch, context, width] to the same."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.c_attn(x).chunk(3, dim=-1)
        )
        dropout = self.dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        out: Tensor = self.resid_dropout(self.c_proj(found.transpose(1, 2).flatten(2)))
        return out


class MLP(nn.Module):
    """What each token does by itself."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width = config["n_embd"]
        inner = config["n_inner"] or 4 * width
        self.c_fc = Conv1D(width, inner)
        self.c_proj = Conv1D(inner, width)
        self.dropout = nn.Dropout(config["resid_pdrop"])

    def forward(self, x: Tensor) -> Tensor:
        """[batch, context, width] to the same."""
        out: Tensor = self.dropout(self.c_proj(F.gelu(self.c_fc(x), approximate="tanh")))
        return out


class Block(nn.Module):
    """One layer."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config["n_embd"], eps=config["layer_norm_epsilon"])
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config["n_embd"], eps=config["layer_norm_epsilon"])
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, context, width] to the same."""
        between = x + self.attn(self.ln_1(x))
        out: Tensor = between + self.mlp(self.ln_2(between))
        return out


class Transformer(nn.Module):
    """From tokens to what is known at each of them."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.wte = nn.Embedding(config["vocab_size"], config["n_embd"])
        self.wpe = nn.Embedding(config["n_positions"], config["n_embd"])
        self.drop = nn.Dropout(config["embd_pdrop"])
        self.h = nn.ModuleList(Block(config) for _ in range(config["n_layer"]))
        self.ln_f = nn.LayerNorm(config["n_embd"], eps=config["layer_norm_epsilon"])
        self._std, self._layers = config["initializer_range"], config["n_layer"]
        self.apply(self._draw)

    def _draw(self, module: nn.Module) -> None:
        """Draw first weights; in the order of transformers, and after as many draws, so a seed gives the same ones."""
        if isinstance(module, nn.Embedding | Conv1D):
            nn.init.normal_(module.weight, std=self._std)
        elif isinstance(module, Attention | MLP):
            # Two residual paths a layer add up: what ends one is smaller, the more layers there are.
            nn.init.normal_(module.c_proj.weight, std=self._std / math.sqrt(2 * self._layers))

    def forward(self, input_ids: Tensor) -> Tensor:
        """[batch, context] to [batch, context, width]."""
        positions = torch.arange(input_ids.shape[-1], device=input_ids.device)
        x = self.drop(self.wte(input_ids) + self.wpe(positions))
        for block in self.h:
            x = block(x)
        out: Tensor = self.ln_f(x)
        return out


class GPT2LMHeadModel(nn.Module):
    """The model, with random weights.

    Args:
        config: What transformers' GPT2Config takes, of those that `computes` allows.
    """

    base_model_prefix = "transformer"

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self._config = DEFAULTS | dict(config)
        self.transformer = Transformer(self._config)
        self.lm_head = nn.Linear(self._config["n_embd"], self._config["vocab_size"], bias=False, device="meta")
        self.lm_head.weight = self.transformer.wte.weight

    @property
    def config(self) -> Any:
        """A GPT2Config, for what describes the model to other programs."""
        from transformers.models.gpt2.configuration_gpt2 import GPT2Config

        return GPT2Config(**self._config)

    def forward(self, input_ids: Tensor) -> Output:
        """Tokens, [batch, context], to scores of what follows each of them."""
        return Output(self.lm_head(self.transformer(input_ids)))
