"""How files lay out a model's weights, where transformers computes with others.

Published files hold each expert of a layer in matrices of its own, or a layer under an older name; in memory all
experts are one tensor. The rules are those of transformers (`conversion_mapping`): what it reads can be trained here,
and what is left behind is laid out as other tools expect it.
"""

import copy
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Read = Callable[[str], Tensor]
"""Gives a tensor of the files by its name there."""


@dataclass(frozen=True)
class Source:
    """What of the files a parameter is made of.

    Attributes:
        first: The parameter, or of several that are made together the first.
        keys: Names in the files, each with the rule's pattern that it fits.
        rule: What makes it of them, a `WeightConverter`; None where it is the one tensor as it is.
    """

    first: str
    rule: Any = None
    keys: list[tuple[str, str]] = field(default_factory=list)


class Layout:
    """Files that hold what the model holds, under its names.

    Args:
        prefix: The model's name for what lies around its blocks, such as `transformer`, which some files leave out.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = f"{prefix}." if prefix else ""

    def sources(self, own: Collection[str], held: Collection[str]) -> dict[str, Source]:
        """Where each parameter comes from, of those that the files have."""
        found = {}
        for name in own:
            key = next((key for key in (name, name.removeprefix(self._prefix)) if key in held), None)
            if key is not None:
                found[name] = Source(name, None, [("", key)])
        return found

    def made(self, name: str, source: Source, read: Read) -> Tensor:
        """A parameter, of what is read from the files."""
        return read(source.keys[0][1])

    def groups(self, names: Iterable[str]) -> list[list[str]]:
        """Parameters by what must be in one file."""
        return [[name] for name in names]

    def stored(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """What files hold of whole groups of parameters."""
        return tensors


AS_IT_IS = Layout()


class OfTransformers(Layout):
    """The files of a model of transformers.

    Args:
        model: A `PreTrainedModel`, which no other library has changed so far.
    """

    def __init__(self, model: nn.Module) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import PrefixChange, WeightConverter, WeightRenaming

        found: Any = model
        super().__init__(str(found.base_model_prefix))
        self._model = found
        every = get_model_conversion_mapping(found)
        self._names = [rule for rule in every if isinstance(rule, WeightRenaming)]
        self._rules = [rule for rule in every if isinstance(rule, WeightConverter)]
        # As transformers does for a model that it has not loaded itself: old names stay old, a prefix stays as it is.
        newest = get_model_conversion_mapping(found, add_legacy=False)
        found._weight_conversions = [rule for rule in newest if not isinstance(rule, PrefixChange)]

    def sources(self, own: Collection[str], held: Collection[str]) -> dict[str, Source]:
        """Where each parameter comes from, of those that the files have."""
        from transformers.core_model_loading import dot_natural_key, rename_source_key

        known = dict.fromkeys(own, True)
        by_pattern = {pattern: rule for rule in self._rules for pattern in rule.source_patterns}
        found: dict[str, Source] = {}
        for key in sorted(held, key=dot_natural_key):
            about: dict[str, Any] = {"base_model_prefix": self._prefix.removesuffix("."), "meta_state_dict": known}
            name, pattern = rename_source_key(key, self._names, self._rules, **about)
            if name not in known and key in known:
                name, pattern = key, None
            if name not in known:
                continue
            if pattern is None:
                found[name] = Source(name, None, [("", key)])
                continue
            rule = by_pattern[pattern]
            source = found.setdefault(name, Source(name, rule))
            source.keys.append((pattern, key))
            first, *others = rule.target_patterns
            found |= {name.replace(first, other): source for other in others}
        return found

    def made(self, name: str, source: Source, read: Read) -> Tensor:
        """A parameter, of what is read from the files; on the meta device its shape."""
        if source.rule is None:
            return super().made(name, source, read)
        rule = copy.deepcopy(source.rule)
        for pattern, key in source.keys:
            rule.add_tensor(source.first, key, pattern, read(key))
        made = rule.convert(source.first, model=self._model, config=self._model.config)[name]
        tensor: Tensor = made[0] if isinstance(made, list) else made
        return tensor

    def groups(self, names: Iterable[str]) -> list[list[str]]:
        """Parameters by what must be in one file."""
        from transformers.core_model_loading import WeightConverter, apply_converters

        back = [rule.reverse_transform() for rule in self._model._weight_conversions[::-1]]
        rules = [rule for rule in back if isinstance(rule, WeightConverter)]
        found: dict[str, list[str]] = {}
        for name in names:
            found.setdefault(apply_converters(name, rules)[0], []).append(name)
        return list(found.values())

    def stored(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """What files hold of whole groups of parameters."""
        from transformers.core_model_loading import revert_weight_conversion

        found: dict[str, Tensor] = revert_weight_conversion(self._model, tensors)
        return {name: tensor.contiguous() for name, tensor in found.items()}


def empty(shape: Iterable[int]) -> Tensor:
    """A tensor of a shape, without memory."""
    return torch.empty(tuple(shape), device="meta")
