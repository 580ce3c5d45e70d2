from __future__ import annotations

from stackctl.errors import JobFailed, MissingHere
from stackctl.validate import results


def test_an_outcome_is_one_line_and_a_failure_says_what_to_do() -> None:
    def fail() -> str:
        raise JobFailed("is too large", where="catalog.toml: budget_gb", hint="make it smaller")

    def skip() -> None:
        raise MissingHere("hadolint is not installed")

    good, bad, left_out = (
        results.attempt("size", "a:cpu", lambda: "1.68 GB of 1.75 GB"),
        results.attempt("size", "b:cpu", fail),
        results.attempt("hadolint", "", skip),
    )
    assert results.line(good) == "ok    size         a:cpu: 1.68 GB of 1.75 GB"
    assert results.line(bad) == "FAIL  size         b:cpu: catalog.toml: budget_gb: is too large\n      make it smaller"
    assert results.line(left_out) == "skip  hadolint     hadolint is not installed"
    assert results.summary([good, bad, left_out]) == "3 checks: 1 ok, 1 failed, 1 skipped"
