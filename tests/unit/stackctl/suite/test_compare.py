import json
from typing import Any

import pytest

from stackctl.errors import InvalidInput
from stackctl.suite import compare


def made(*checks: tuple[str, str, dict[str, Any]], **changes: Any) -> dict[str, Any]:
    node = {"node": 0, "kernel": "6.1", "driver": None, "devices": []}
    rows = [{"name": name, "node": 0, "status": status, "found": f"{name} {status}", "figures": figures}
            for name, status, figures in checks]  # fmt: skip
    base = {"schema_version": 1, "status": "pass", "image": None, "seen": None, "nodes": [node], "checks": rows}
    return {**base, **changes}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a report of the suite"),
        ('{"checks": []}', "is not a report of the suite"),
        (json.dumps(made(schema_version=9)), "old.json: schema_version: must be 1, not 9"),
    ],
)
def test_what_is_no_report_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidInput) as error:
        compare.read(text, "old.json")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("status", "strict", "failed"),
    [
        ("pass", True, False),
        ("warn", False, False),
        ("warn", True, True),
        ("fail", False, True),
        ("unknown", False, True),
    ],
)
def test_warnings_count_only_if_asked(status: str, strict: bool, failed: bool) -> None:
    assert compare.failed(made(status=status), strict=strict) is failed


def test_equal_reports_do_not_differ() -> None:
    one = made(("a", "pass", {"seconds": 1.0}))
    assert compare.compare(one, json.loads(json.dumps(one))) == []


def test_a_comparison_names_results_figures_and_circumstances() -> None:
    old = made(("a", "pass", {"gb_per_s": 100.0, "n": 3}), ("b", "pass", {}), ("gone", "skip", {}))
    new = made(("a", "pass", {"gb_per_s": 50.0, "n": 3}), ("b", "fail", {}), ("new", "warn", {}),
               image={"image": "pytorch", "variant": "cpu", "lock": "1"})  # fmt: skip
    assert compare.compare(old, new) == [
        "image: none -> pytorch (cpu)",
        "lock: none -> 1",
        "a: gb_per_s 100 -> 50 (-50%)",
        "b: pass -> fail: b fail",
        "new: new, warn",
        "gone: gone, skip",
    ]


def test_noise_and_flags_are_no_change() -> None:
    old, new = (
        made(("a", "pass", {"s": 1.0, "ok": True, "zero": 0})),
        made(("a", "pass", {"s": 1.05, "ok": False, "zero": 1})),
    )
    assert compare.compare(old, new) == []


def test_what_is_wrong_names_the_checks_and_their_hosts() -> None:
    nodes = [{"node": number, "host": f"gpu-{number}"} for number in range(3)]
    found = made(("shm", "fail", {}), ("busbw", "warn", {}), nodes=nodes, counts={"fail": 1})
    found["checks"][0]["node"] = 2
    assert compare.trouble(found, strict=True) == "shm failed on gpu-2"
    assert compare.trouble({**found, "nodes": nodes[2:], "checks": []}, strict=False) == "nothing was checked"
    del found["checks"][0]
    found["counts"]["fail"] = 0
    assert compare.trouble(found, strict=True) == "busbw warned, and --strict counts that on gpu-0"
