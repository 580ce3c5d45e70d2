"""What the checks measure on GPUs, measured on a CPU as far as it can be, and judged as healthy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stackrt.checks import bandwidth, nccl, ranks
from stackrt.checks import pytorch_gpu as gpu
from stackrt.checks.context import Context
from stackrt.checks.pytorch import judge_training

pytestmark = pytest.mark.needs("torch")


@pytest.fixture(autouse=True)
def settings() -> object:
    """One thread, for several wait for each other on a busy machine; and what tests change is put back."""
    before, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_float32_matmul_precision(before)
    torch.set_num_threads(threads)


def test_matrix_products_are_within_rounding() -> None:
    errors = gpu.matmul_errors("cpu", size=256)
    assert gpu.judge_matmul({"cpu": errors}).status == "pass"
    # The bounds are near enough to tell one precision from the next.
    assert errors["bf16"] > gpu.MOST_MATMUL_ERROR["fp16"] > errors["fp16"] > gpu.MOST_MATMUL_ERROR["fp32"]


def test_a_convolutional_network_learns() -> None:
    assert gpu.judge_losses(gpu.conv_losses("cpu")).status == "pass"


def test_autocast_has_low_precision_outputs_and_fp32_gradients() -> None:
    assert gpu.judge_amp(gpu.amp_types("cpu")).status == "pass"


def test_a_burn_in_counts_rounds_and_finds_what_does_not_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    def burn(seconds: float) -> bandwidth.Burn:
        (made,) = bandwidth.burn_figures(["cpu"], seconds, lambda _: (1500, 0), size=64, products=2, warm_up=0.0)
        return made

    made = burn(0.05)
    assert made.rounds >= 1
    assert made.unequal == 0
    assert made.tflop_per_s > 0
    assert bandwidth.judge_burns(["a CPU"], [made]).status == "pass"

    plain, calls = torch.mm, iter(range(1000))

    def wrong_at_the_end(a: torch.Tensor, b: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        plain(a, b, out=out)
        return out.add_(next(calls) == 1)

    monkeypatch.setattr(torch, "mm", wrong_at_the_end)
    assert burn(0.0).unequal == 1


def test_copies_between_devices_are_compared() -> None:
    assert bandwidth.unequal_copies(["cpu", "cpu", "cpu"], size=1000) == []


def test_collectives_are_exact_over_gloo(tmp_path: Path) -> None:
    answers = ranks.run(
        Context(None, tmp_path), "stackrt.checks.nccl_ranks:collectives", 2, arguments={"most": 2**16}, timeout=120
    )
    assert [row["bytes"] for row in answers[0].values()] == [2**16] * 5
    assert nccl.judge_collectives("gloo", answers).status == "pass"


def test_sharded_training_equals_one_process_and_its_checkpoint_comes_back(tmp_path: Path) -> None:
    answers = ranks.run(
        Context(None, tmp_path),
        "stackrt.checks.torch_ranks:train",
        2,
        arguments={"kinds": ["ddp", "fsdp"]},
        timeout=120,
    )
    assert {"ddp_error", "fsdp_error", "shards_lost"} == set(answers[0])
    assert judge_training(answers).status == "pass"
