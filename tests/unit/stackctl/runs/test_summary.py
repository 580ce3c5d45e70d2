from __future__ import annotations

from pathlib import Path

from stackctl.jobs import job as jobs
from stackctl.runs import summary
from stackctl.runs.store import Record

JOB = jobs.make(name="a", workload="gpt", nodes=2, procs=1)
RECORD = Record(name="a", backend="local", attempt=1, started="x", state="succeeded", exit_code=0)
RESULT = {
    "first_train_loss": 5.5,
    "last_train_loss": 1.9,
    "first_val_loss": 5.4,
    "last_val_loss": 2.0,
    "bigram_loss": 2.5,
    "tokens_per_second": 31234.5,
    "checkpoint": "checkpoints/step-000400.pt",
}


def test_a_finished_run_shows_losses_throughput_and_files(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in ("loss.png", "sample.txt", "checkpoints/step-000400.pt"):
        (tmp_path / name).touch()
    text = summary.text(JOB, RECORD, "processes", tmp_path, RESULT)
    for said in ("2 nodes x 1 rank, processes", "5.400 -> 2.000", "bigram model 2.500", "31,234 tokens/s"):
        assert said in text
    for name in ("loss.png", "sample.txt", "checkpoints/step-000400.pt"):
        assert str(tmp_path / name) in text


def test_a_run_without_results_shows_its_logs_only(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    assert summary.text(JOB, RECORD, "processes", tmp_path, None).splitlines()[1:] == [
        f"  logs         {tmp_path / 'logs'}"
    ]


def test_a_failure_is_told_in_the_launchers_words(tmp_path: Path) -> None:
    report = {"sentence": "rank 1 on node 0 was killed by SIGKILL", "last_lines": ["step 3", "step 4"]}
    told = summary.failure(RECORD, tmp_path, report)
    assert told == "rank 1 on node 0 was killed by SIGKILL\n  | step 3\n  | step 4"
    assert "what it said is above" in summary.failure(RECORD, tmp_path, None)
    (tmp_path / "logs").mkdir()
    assert "its logs are in" in summary.failure(RECORD, tmp_path, None)
