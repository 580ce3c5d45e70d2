from __future__ import annotations

import dataclasses

from stackrt.checks.context import Context, Seen
from stackrt.checks.result import Result
from tests.integration.checks.bench import Bench
from tests.integration.checks.faults import fault, healthy, healthy_in


@fault("required", "a GPU is asked for where there is none")
def no_gpu(bench: Bench) -> Result:
    return bench.run("required", bench.context(required=frozenset({"gpu"})))


@fault("required", "eight GPUs are asked for where there are two")
def too_few(bench: Bench) -> Result:
    return bench.run("required", bench.context(required=frozenset({"gpu"}), requested_gpus=8, gpus=2))


@healthy("required")
def enough(bench: Bench) -> Result:
    return bench.run("required", bench.context(required=frozenset({"gpu"}), requested_gpus=2, gpus=2))


def labelled(bench: Bench, **changes: str) -> Context:
    facts = bench.facts(budget=1000)
    labels = {
        "io.stackctl.variant": facts.variant,
        "io.stackctl.lock": facts.lock,
        "io.stackctl.torch": facts.versions["torch"],
        "org.opencontainers.image.base.name": facts.base,
    }
    return bench.context(facts, seen=Seen("sha256:0", 900, {**labels, **changes}))


@fault("labels", "a label that names another lock")
def another_lock(bench: Bench) -> Result:
    return bench.run("labels", labelled(bench, **{"io.stackctl.lock": "1" * 64}))


@fault("labels", "no labels at all")
def no_labels(bench: Bench) -> Result:
    context = labelled(bench)
    return bench.run("labels", dataclasses.replace(context, seen=Seen("sha256:0", 900, {})))


@healthy("labels")
def as_built(bench: Bench) -> Result:
    return bench.run("labels", labelled(bench))


@fault("size-budget", "one large file more")
def large_file(bench: Bench) -> Result:
    context = labelled(bench)
    (context.root / "core").write_bytes(b"0" * 8000)
    return bench.run("size-budget", context)


healthy_in("pytorch", "labels", "size-budget")
