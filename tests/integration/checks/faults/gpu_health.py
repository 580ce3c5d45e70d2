"""A fake driver at NVML's boundary stands for the GPUs: tests/fakes/driver.c."""

from __future__ import annotations

from dataclasses import replace

from stackrt.checks.result import Result
from tests.fakes import driver
from tests.fakes.driver import FakeDriver
from tests.integration.checks.bench import Bench
from tests.integration.checks.faults import fault, healthy

FIRST, SECOND = driver.two()


def on(bench: Bench, machine: FakeDriver, check: str, **changes: object) -> Result:
    facts = bench.facts(cuda="13.0", minimum_driver="580", gpu_architectures=("9.0",))
    context = bench.context(facts, **{"gpus": 2, "requested_gpus": 2, **changes})
    return bench.run(check, context, env=machine.write(bench.tmp), plant=driver.load)


@healthy("driver-floor", needs=("compiler",))
def new_driver(bench: Bench) -> Result:
    return on(bench, FakeDriver(), "driver-floor")


@fault("driver-floor", "a driver older than the image's CUDA needs", needs=("compiler",))
def old_driver(bench: Bench) -> Result:
    return on(bench, FakeDriver(driver="570.172.08", cuda=12080), "driver-floor")


@healthy("driver-floor", needs=("compiler",))
def compatible(bench: Bench) -> Result:
    result = on(bench, FakeDriver(driver="570.172.08"), "driver-floor")
    assert "forward-compatible" in result.found
    return result


@fault("driver-floor", "a libcuda that does not fit the kernel's driver", needs=("compiler",))
def mismatch(bench: Bench) -> Result:
    return on(bench, FakeDriver(cuda_error=803), "driver-floor")


@healthy("gpus-visible", needs=("compiler",))
def all_there(bench: Bench) -> Result:
    return on(bench, FakeDriver(), "gpus-visible")


@healthy("gpus-visible", needs=("compiler",))
def cut_into_instances(bench: Bench) -> Result:
    result = on(bench, FakeDriver(gpus=[FIRST, replace(SECOND, mig_mode=1, mig=["MIG-1", "MIG-2"])]), "gpus-visible")
    assert "2 MIG instances" in result.found
    return result


@fault("gpus-visible", "a GPU is missing", needs=("compiler",))
def missing(bench: Bench) -> Result:
    return on(bench, FakeDriver(gpus=[FIRST]), "gpus-visible")


@fault("gpus-visible", "two GPUs with one UUID", needs=("compiler",))
def twice(bench: Bench) -> Result:
    return on(bench, FakeDriver(gpus=[FIRST, FIRST]), "gpus-visible")


@fault("gpus-visible", "a GPU that has fallen off the bus", needs=("compiler",))
def lost(bench: Bench) -> Result:
    return on(bench, FakeDriver(gpus=[FIRST, replace(SECOND, gone=15)]), "gpus-visible")


@healthy("gpu-health", needs=("compiler",))
def sound(bench: Bench) -> Result:
    return on(bench, FakeDriver(), "gpu-health")


@healthy("gpu-health", needs=("compiler",))
def no_ecc(bench: Bench) -> Result:
    return on(
        bench, FakeDriver(gpus=[replace(FIRST, name="NVIDIA GeForce RTX 4090", ecc=0, mig_mode=-1)]), "gpu-health"
    )


@fault("gpu-health", "uncorrected memory errors since the driver was loaded", needs=("compiler",))
def errors(bench: Bench) -> Result:
    return on(bench, FakeDriver(gpus=[FIRST, replace(SECOND, since_load=2, lifetime=2)]), "gpu-health")


@fault("gpu-health", "uncorrected memory errors in earlier days", needs=("compiler",))
def old_errors(bench: Bench) -> Result:
    return on(bench, FakeDriver(gpus=[FIRST, replace(SECOND, lifetime=2)]), "gpu-health")


@fault("gpu-health", "a pending row remap", needs=("compiler",))
def pending(bench: Bench) -> Result:
    return on(bench, FakeDriver(gpus=[replace(FIRST, pending=1), SECOND]), "gpu-health")


@fault("gpu-health", "a failed row remap", needs=("compiler",))
def failed(bench: Bench) -> Result:
    return on(bench, FakeDriver(gpus=[replace(FIRST, failed=1), SECOND]), "gpu-health")


@fault("gpu-health", "clocks throttled by heat", needs=("compiler",))
def hot(bench: Bench) -> Result:
    return on(bench, FakeDriver(gpus=[FIRST, replace(SECOND, slowed=0x48)]), "gpu-health")
