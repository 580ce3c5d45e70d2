"""`python -m stackrt.launch [--grace S] -- CMD…`: run one node of a job. See docs/launcher.md."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from stackrt.contract import BINDS, CONFIG, Reason
from stackrt.launch import environment, failure
from stackrt.launch.client import Client
from stackrt.launch.coordinator import Coordinator
from stackrt.launch.environment import Contract
from stackrt.launch.errors import ConfigError, LaunchError
from stackrt.launch.helper import Helper
from stackrt.launch.loop import Loop
from stackrt.launch.member import Member, forget_failure
from stackrt.launch.output import Console, drain, standard_streams
from stackrt.launch.ports import Ports
from stackrt.launch.rank_group import Ranks
from stackrt.launch.server import Server
from stackrt.launch.streams import fill_standard_streams
from stackrt.launch.timing import HEARTBEAT, TICK
from stackrt.signals import NOTICES, STOPS, as_usual

USAGE = """usage: python -m stackrt.launch [--grace SECONDS] [--bind auto|none] -- COMMAND [ARGUMENT ...]

Run one node of a job: STACK_PROCS copies of COMMAND, as ranks that find each other.
All else comes from the environment: STACK_RUN STACK_ATTEMPT STACK_NODES STACK_NODE_RANK
STACK_PROCS STACK_DEVICE STACK_RENDEZVOUS STACK_TOKEN STACK_FRAMEWORK STACK_OUT STACK_TIMEOUT.

  --grace SECONDS  on SIGTERM or SIGINT, kill ranks that have not ended by then (default 30)
  --bind auto      keep each rank to the CPUs near its GPU, where the machine tells (the default); none: leave them free
"""
GRACE = 30.0
MOST_SHOWN = 80
"""Characters of a program's name in a message."""


def main() -> int:
    """Run this node; return the launcher's exit code."""
    if sys.argv[1:2] in (["--help"], ["-h"]):
        sys.stdout.write(USAGE)
        return 0
    fill_standard_streams()
    as_usual()
    loop = Loop()
    out, err = standard_streams(loop)
    console = Console(err)
    try:
        return launch(loop, Ranks(loop, out, console), console)
    except LaunchError as error:
        console.say(str(error))
        failure.write_termination_log(
            failure.report(
                os.environ.get("STACK_RUN", ""), 1, reason=Reason.CONFIG, code=error.exit_code, sentence=str(error)
            )
        )
        return error.exit_code
    except OSError as error:
        # No state of a file system or of the network is a fault of ours, so none is worth a traceback.
        console.say(f"{error.filename or 'the system'}: {error.strerror or error}")
        return CONFIG
    finally:
        drain({out, err})


def launch(loop: Loop, ranks: Ranks, console: Console) -> int:
    """Read the contract, join the job, run until the verdict.

    Raises:
        ConfigError: this node can't run, and no other node needs to be told.
    """
    options, command = parse(sys.argv[1:])
    contract = count_ranks(environment.read(os.environ))
    device, problem = check(contract, command, console)
    if problem is not None and contract.nodes > 1:
        console.say(f"{problem} (telling the other nodes)")

    ports, helper = Ports(), Helper(loop, console)
    member = Member(
        loop, contract, device, command, options.grace, bind=options.bind, ranks=ranks, ports=ports, console=console
    )
    loop.on_signals(
        (*STOPS, *NOTICES, signal.SIGCHLD),
        lambda number: ranks.reap() if number == signal.SIGCHLD else member.on_signal(number),
    )
    if contract.node == 0:
        coordinate(loop, contract, member, ports, helper, problem, console)
    else:
        client = Client(loop, contract, member, member.join_message(problem), console)
        loop.every(TICK, client.tick)
        client.start()
    try:
        return loop.run()
    finally:
        helper.close()
        ports.close()


def coordinate(
    loop: Loop,
    contract: Contract,
    member: Member,
    ports: Ports,
    helper: Helper,
    problem: str | None,
    console: Console,
) -> None:
    """Set node 0 up: it listens for the others, decides for the job, and is a member of it itself."""
    server = Server(loop, contract, member, console)
    if contract.nodes > 1:
        server.listen()
    # Not before we know that no other job of this name has the port.
    forget_failure(contract)
    # As torch reads it; who sets it to False has rank 0 hold the store.
    agent_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE", "True") == "True"
    port = ports.reserve(1)[0]
    coordinator = Coordinator(
        contract, port, lambda: loop.awake, server.send, helper.prepare, console, agent_store=agent_store
    )
    server.coordinator = coordinator
    loop.every(TICK, server.tick)
    loop.every(HEARTBEAT, coordinator.ping)
    # One node needs no name, and its name may not resolve yet.
    coordinator.join(member.join_message(problem), contract.host if contract.nodes > 1 else environment.LOOPBACK)
    coordinator.joined(0)


class Options(NamedTuple):
    """The launcher's own options."""

    grace: float = GRACE
    bind: bool = True


def parse(arguments: Sequence[str]) -> tuple[Options, Sequence[str]]:
    """Split the command line into the launcher's options and the ranks' command.

    Raises:
        ConfigError: an unknown option, a wrong value, or no command.
    """
    options, rest = Options(), list(arguments)
    while rest and rest[0].startswith("-") and rest[0] != "--":
        option, equals, value = rest.pop(0).partition("=")
        if option not in ("--grace", "--bind"):
            raise ConfigError(f"{option}: no such option; put the ranks' command after --")
        if not equals:
            value = rest.pop(0) if rest else ""
        options = options._replace(grace=_grace(value)) if option == "--grace" else options._replace(bind=_bind(value))
    command = rest[1:] if rest[:1] == ["--"] else rest
    if not command:
        raise ConfigError("no command: write what each rank runs after --, as in `python -m stackrt.launch -- CMD`")
    return options, command


def _grace(value: str) -> float:
    try:
        return environment.seconds(value)
    except ValueError:
        raise ConfigError(f"--grace={value}: must be a number of seconds from 0 up; {GRACE:g} is the default") from None


def _bind(value: str) -> bool:
    if value not in BINDS:
        raise ConfigError(f"--bind={value}: must be auto or none; auto is the default")
    return value == "auto"


def count_ranks(contract: Contract) -> Contract:
    """Settle how many ranks `STACK_PROCS=auto` means here: one for each visible GPU, one on a CPU."""
    if contract.procs:
        return contract
    from stackrt.launch.gpus import count_visible

    return contract._replace(procs=count_visible() or 1)


def check(contract: Contract, command: Sequence[str], console: Console) -> tuple[str, str | None]:
    """Look at what only this node can know: device, command, output folder; return the device and what is wrong."""
    device, problem = choose_device(contract, console)
    return device, problem or wrong_command(command[0]) or wrong_folder(contract.out)


def choose_device(contract: Contract, console: Console) -> tuple[str, str | None]:
    """Return `cpu` or `cuda`, and what is wrong if the visible GPUs don't fit the ranks."""
    if contract.device == "cpu":
        return "cpu", None
    # Here, so that a CPU run never pays for it.
    from stackrt.launch.gpus import count_visible

    gpus, procs = count_visible(), contract.procs
    if gpus == procs or (contract.all_gpus and gpus):
        return "cuda", choose_driver(console)
    if gpus == 0 and contract.device == "auto":
        console.say("no GPU visible: STACK_DEVICE=auto means cpu here")
        return "cpu", None
    advice = f"set STACK_PROCS={gpus}, or change the GPUs this node gets" if gpus else "give this node its GPUs"
    return "cuda", (
        f"STACK_DEVICE={contract.device}: {gpus} visible GPUs for STACK_PROCS={procs}: must be one GPU a rank; "
        f"{advice}, or set STACK_DEVICE=cpu"
    )


def choose_driver(console: Console) -> str | None:
    """Give the ranks a newer user-mode driver where they need one and it is there; tell if the host's is too old."""
    from stackrt.launch import driver, gpus

    choice = driver.choose(driver.image_facts(), gpus.driver_version(), driver.compat_version())
    if choice.folder:
        console.say(f"this host's driver is older than the image's CUDA needs: using the libraries of {choice.folder}")
        old = os.environ.get("LD_LIBRARY_PATH")
        os.environ["LD_LIBRARY_PATH"] = f"{choice.folder}:{old}" if old else choice.folder
    return choice.problem


def wrong_command(program: str) -> str | None:
    """Tell why a program can't be started, if so; looks where `exec` looks."""
    folders = [""] if "/" in program else os.environ.get("PATH", os.defpath).split(os.pathsep)
    # Not pathlib's is_file, which raises for a folder that may not be searched and for a name that is too long.
    found = [path for folder in folders if os.path.isfile(path := os.path.join(folder, program))]  # noqa: PTH113, PTH118
    if any(os.access(path, os.X_OK) for path in found):
        return None
    if found:
        return f"{found[0]}: not executable; allow it with chmod +x, or name its interpreter in the command"
    shown = program if len(program) <= MOST_SHOWN else f"{program[:MOST_SHOWN]}…"
    quoted = " (it has spaces: were its words meant to be several?)" if " " in program else ""
    return f"{shown}: command not found{quoted}; check the command after --, and PATH, on this node"


def wrong_folder(out: Path) -> str | None:
    """Make the output folder; tell why it can't be written, if so."""
    try:
        (out / "logs").mkdir(parents=True, exist_ok=True)
        # Permission bits don't tell of a read-only file system; only a write does.
        probe = out / f".writable.{os.uname().nodename}.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        return (
            f"STACK_OUT={out}: can't be written by uid {os.getuid()}: {error.strerror}; "
            "name a folder that this user can write, or run as its owner (in Compose: STACK_UID)"
        )
    return None


if __name__ == "__main__":
    sys.exit(main())
