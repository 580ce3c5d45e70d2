"""GPT-2 in plain torch is that of transformers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from stackrt.train import gpt
from stackrt.train.options import parse


def test_the_model_computes_what_that_of_transformers_does() -> None:
    """Also its gradients; and a seed gives both the same weights, bit for bit."""
    o = parse(["--layers", "3", "--heads", "2", "--width", "64", "--context", "16", "--vocab-size", "500"])
    torch.manual_seed(0)
    ours: Any = gpt.build_model(o)
    torch.manual_seed(0)
    theirs: Any = gpt.build_with_transformers(gpt.model_config(o))
    assert type(ours) is not type(theirs)
    assert type(ours).__name__ == type(theirs).__name__, "an export's config.json names it"
    wanted = dict(theirs.named_parameters())
    assert [name for name, _ in ours.named_parameters()] == [*wanted], "an optimizer's state goes by their order"
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(parameter, wanted[name]) for name, parameter in ours.named_parameters())
    ids = torch.randint(500, (4, 17))
    losses = [gpt.token_losses(model.train(), ids[:, :-1], ids[:, 1:], "fp32") for model in (ours, theirs)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.mean().backward()  # type: ignore[no-untyped-call]
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name].grad, msg=name)
    assert ours.config.to_dict() == theirs.config.to_dict()


@pytest.mark.parametrize("other", [{"activation_function": "relu"}, {"scale_attn_by_inverse_layer_idx": True}], ids=str)
def test_a_variant_is_made_by_transformers(other: dict[str, object], tmp_path: Path) -> None:
    known: Any = gpt.build_model(parse([]))
    (tmp_path / "config.json").write_text(json.dumps(known.config.to_dict() | other))
    model: Any = gpt.build_model(parse(["--init", str(tmp_path)]))
    assert type(model).__module__.startswith("transformers.")
    assert {name: getattr(model.config, name) for name in other} == other
