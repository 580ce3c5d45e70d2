from pathlib import Path

import pytest

from stackrt.launch import environment
from stackrt.launch.__main__ import choose_device
from stackrt.launch.errors import ConfigError

PAIR = {"STACK_NODES": "2", "STACK_RENDEZVOUS": "node-0:29400", "STACK_TOKEN": "0123456789abcdef"}


def test_nothing_set_is_one_rank_here() -> None:
    ours = environment.read({})
    assert (ours.nodes, ours.node, ours.procs, ours.attempt) == (1, 0, 1, 1)
    assert (ours.device, ours.framework, ours.timeout) == ("auto", "torch", 300.0)
    assert ours.out == Path.cwd() / "out"


def test_empty_is_unset() -> None:
    names = ("RUN", "ATTEMPT", "NODES", "NODE_RANK", "PROCS", "DEVICE", "RENDEZVOUS", "TOKEN", "FRAMEWORK", "OUT")
    assert environment.read({f"STACK_{name}": "" for name in names}) == environment.read({})


def test_one_rank_may_have_all_gpus() -> None:
    ours = environment.read({"STACK_ALL_GPUS": "1", "STACK_PROCS": "auto"})
    assert (ours.all_gpus, ours.procs) == (True, 1)
    with pytest.raises(ConfigError, match="STACK_ALL_GPUS=1 with STACK_PROCS=2: one rank has all GPUs"):
        environment.read({"STACK_ALL_GPUS": "1", "STACK_PROCS": "2"})


@pytest.mark.parametrize(("visible", "wrong"), [(8, False), (1, False), (0, True)])
def test_all_gpus_may_be_any_number(monkeypatch: pytest.MonkeyPatch, visible: int, wrong: bool) -> None:
    monkeypatch.setattr("stackrt.launch.gpus.count_visible", lambda: visible)
    monkeypatch.setattr("stackrt.launch.__main__.choose_driver", lambda _console: None)
    ours = environment.read({"STACK_ALL_GPUS": "1", "STACK_DEVICE": "cuda"})
    assert (choose_device(ours, None)[1] is not None) is wrong  # type: ignore[arg-type]  # nothing is said


@pytest.mark.parametrize(("text", "attempt"), [("3", 3), ("1+0+", 1), ("1+2+1", 4), ("1++", 1)])
def test_an_attempt_may_be_a_sum(text: str, attempt: int) -> None:
    assert environment.read({"STACK_ATTEMPT": text}).attempt == attempt


@pytest.mark.parametrize(
    ("text", "expected"),
    [("node-0:29400", ("node-0", 29400)), ("[fd00::1]:1", ("fd00::1", 1)), ("10.0.0.1:65535", ("10.0.0.1", 65535))],
)
def test_rendezvous(text: str, expected: tuple[str, int]) -> None:
    ours = environment.read(PAIR | {"STACK_RENDEZVOUS": text})
    assert (ours.host, ours.port) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STACK_NODES", "0"),
        ("STACK_NODES", "two"),
        ("STACK_NODES", "1e1"),
        ("STACK_NODE_RANK", "2"),
        ("STACK_NODE_RANK", "-1"),
        ("STACK_PROCS", "0"),
        ("STACK_PROCS", "8 "),
        ("STACK_PROCS", "٣"),
        ("STACK_PROCS", "99999999999999999999"),
        ("STACK_ATTEMPT", "0"),
        ("STACK_ATTEMPT", "1+-1"),
        ("STACK_ATTEMPT", "0+0"),
        ("STACK_ATTEMPT", "1 + 1"),
        ("STACK_DEVICE", "gpu"),
        ("STACK_FRAMEWORK", "jax"),
        ("STACK_ALL_GPUS", "yes"),
        ("STACK_TIMEOUT", "0"),
        ("STACK_TIMEOUT", "nan"),
        ("STACK_TIMEOUT", "inf"),
        ("STACK_TIMEOUT", "5m"),
        ("STACK_RENDEZVOUS", "node-0"),
        ("STACK_RENDEZVOUS", "node-0:"),
        ("STACK_RENDEZVOUS", ":29400"),
        ("STACK_RENDEZVOUS", "node-0:0"),
        ("STACK_RENDEZVOUS", "node-0:65536"),
        ("STACK_RENDEZVOUS", "fd00::1:29400"),
        ("STACK_RUN", "two\nlines"),
        ("STACK_RUN", "x" * 201),
    ],
)
def test_a_wrong_value_is_named_on_one_line_with_advice(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        environment.read(PAIR | {name: value})
    message = str(caught.value)
    assert message.startswith(f"{name}=")
    assert "must be" in message
    assert ";" in message
    assert message.isprintable()
    assert len(message) < 300
    assert caught.value.exit_code == 78


@pytest.mark.parametrize("token", ["", "short"])
def test_several_nodes_need_a_good_token_which_is_never_shown(token: str) -> None:
    with pytest.raises(ConfigError, match=r"^STACK_TOKEN is ") as caught:
        environment.read(PAIR | {"STACK_TOKEN": token})
    assert not token or token not in str(caught.value)


def test_the_token_is_not_in_the_repr() -> None:
    ours = environment.read(PAIR)
    assert ours.token not in f"{ours!r} {ours}"


def test_several_nodes_need_a_rendezvous() -> None:
    with pytest.raises(ConfigError, match="STACK_RENDEZVOUS is not set"):
        environment.read({"STACK_NODES": "2", "STACK_TOKEN": PAIR["STACK_TOKEN"]})
