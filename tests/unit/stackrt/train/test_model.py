"""The parts of the GPT script: schedule, optimizer groups, losses, model sizes, identity of a run."""

import math
import signal

import pytest
import torch

from stackrt.train import gpt, ranks
from stackrt.train import text as texts
from stackrt.train.command_line import flag
from stackrt.train.errors import BadInputError
from stackrt.train.options import parse
from stackrt.train.process import build_optimizer, learning_rate

TINY = ["--layers", "1", "--heads", "2", "--width", "16", "--context", "8"]


def test_the_schedule_warms_up_peaks_and_ends_at_the_minimum() -> None:
    o = parse(["--steps", "100", "--warmup", "10", "--lr", "1", "--min-lr", "0.1"])
    rates = [learning_rate(step, o) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == max(rates) == 1
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[99] == pytest.approx(0.1)
    assert learning_rate(10 + 44, o) == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi * 44 / 89)))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_schedule_of_very_short_runs(steps: int) -> None:
    o = parse(["--steps", str(steps)])
    assert all(o.min_lr <= learning_rate(step, o) <= o.lr for step in range(steps))


def test_weight_decay_is_for_matrices() -> None:
    model = gpt.build_model(parse(TINY))
    decayed, kept = build_optimizer(model.parameters(), parse(TINY)).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert {p.dim() for p in kept["params"]} == {1}
    assert sum(len(group["params"]) for group in (decayed, kept)) == len(list(model.parameters()))


def test_gpt2_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = gpt.build_model(parse(["--preset", "gpt2"]))
    assert sum(p.numel() for p in model.parameters()) == 124_439_808


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_losses_of_an_untrained_model_are_those_of_chance(dtype: str) -> None:
    torch.manual_seed(0)
    model = gpt.build_model(parse(TINY))
    ids = torch.arange(32).view(4, 8)
    losses = gpt.token_losses(model, ids, ids + 1, dtype)
    assert losses.shape == (32,)
    assert losses.dtype == torch.float32
    assert float(losses.detach().mean()) == pytest.approx(math.log(256), abs=0.1)


def test_a_prediction_does_not_see_what_it_predicts() -> None:
    torch.manual_seed(0)
    model = gpt.build_model(parse(TINY)).eval()
    ids = torch.arange(8).view(1, 8)
    changed = ids.clone()
    changed[0, 5:] = 99
    first, second = (gpt.token_losses(model, x, ids, "fp32") for x in (ids, changed))
    assert torch.equal(first[:5], second[:5])
    assert not torch.equal(first[5:], second[5:])


def test_samples_repeat_and_stay_in_the_vocabulary() -> None:
    o = parse([*TINY, "--sample-tokens", "20", "--vocab-size", "300"])
    model = gpt.build_model(o)
    first, second = (gpt.sample(model, torch.tensor([1, 2, 3]), o, 256) for _ in range(2))
    assert first == second
    assert first[:3] == [1, 2, 3]
    assert len(first) == 23
    assert max(first) < 256


def test_every_option_that_changes_the_weights_is_part_of_the_identity() -> None:
    """An option is either in the fingerprint or on this list of those that may change over a resume."""
    free = {"preset", "out", "data", "threads", "log_every", "eval_every", "eval_tokens", "checkpoint_every", "keep",
            "resume", "sample_tokens", "track", "export"}  # fmt: skip
    o = parse([])
    corpus = texts.Corpus(torch.zeros(1), torch.zeros(1), "digest")
    place = ranks.Ranks(0, 0, 1, torch.device("cpu"), None)  # type: ignore[arg-type]
    named = set(gpt.fingerprint(o, corpus, place)) - {"--data", "WORLD_SIZE", "STACK_DEVICE"}
    assert {flag(name) for name in vars(o)} == named | {flag(name) for name in free}


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert ranks.pick_device("auto", 3) == ranks.pick_device("cpu", 0) == torch.device("cpu")
    with pytest.raises(BadInputError, match="no GPU"):
        ranks.pick_device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert ranks.pick_device("auto", 1) == ranks.pick_device("cuda", 1) == torch.device("cuda", 1)
    assert ranks.pick_device("cpu", 1) == torch.device("cpu")
    with pytest.raises(BadInputError, match="LOCAL_RANK 2 has no GPU: this node shows 2"):
        ranks.pick_device("cuda", 2)


def test_signals_are_the_program_s_own_until_it_listens() -> None:
    before = signal.getsignal(signal.SIGTERM)
    ranks.Stop()
    assert signal.getsignal(signal.SIGTERM) is before
