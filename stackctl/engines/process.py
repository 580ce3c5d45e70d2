"""Starting other programs: always an argument list, never a shell string."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from stackctl.errors import CommandFailed, MissingHere


def find(program: str, env: Mapping[str, str] | None = None) -> str | None:
    """The path of a program, or None: first what came with the tool, which lies beside its Python, then PATH's.

    So stackctl finds its uv also where it is called by path and its virtual environment is not active. Where the folder
    is on PATH, as that of a system's Python is, the order of PATH stands: a person's own `docker` may come before it.

    Args:
        program: Its name, or a path.
        env: The environment whose PATH counts; ours by default.
    """
    import shutil  # with its archives' modules it is a tenth of a dry run, which starts no program

    path = (os.environ if env is None else env).get("PATH", os.defpath)
    beside = str(Path(sys.executable).parent)
    return shutil.which(program, path=path if beside in path.split(os.pathsep) else f"{beside}{os.pathsep}{path}")


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    text: str | None = None,
    apart: bool = False,
    hint: str = "",
) -> str:
    """Run a program to its end and return its standard output.

    Args:
        argv: Program and arguments.
        env: The whole environment; ours by default.
        cwd: Working folder.
        text: Standard input.
        apart: In a session of its own: a Ctrl-C in the terminal, which goes to all that runs there, does not end it.
        hint: What to do if it fails or is absent.

    Raises:
        MissingHere: The program is not installed.
        CommandFailed: It ended with another exit code than 0; carries its last lines.
    """
    try:
        done = subprocess.run(
            argv,
            executable=find(argv[0], env),
            env=env,
            cwd=cwd,
            input=text,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=apart,
        )
    except FileNotFoundError:
        raise MissingHere(f"the program {argv[0]!r} is not installed here", hint=hint) from None
    if done.returncode != 0:
        raise CommandFailed(argv, done.returncode, done.stderr or done.stdout, hint=hint)
    return done.stdout


def stream(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    to_stderr: bool = False,
    hint: str = "",
) -> None:
    """Run a program whose output goes straight to the person watching.

    Args:
        to_stderr: Send its standard output to ours for errors, so that our own stays data.

    Raises:
        MissingHere: The program is not installed.
        CommandFailed: It ended with another exit code than 0.
    """
    try:
        code = subprocess.run(
            argv, executable=find(argv[0], env), env=env, cwd=cwd, stdout=2 if to_stderr else None, check=False
        ).returncode
    except FileNotFoundError:
        raise MissingHere(f"the program {argv[0]!r} is not installed here", hint=hint) from None
    if code != 0:
        raise CommandFailed(argv, code, hint=hint)


def lines(
    argv: Sequence[str], hear: Callable[[str], None], *, env: Mapping[str, str] | None = None, hint: str = ""
) -> int:
    """Run a program and hand on each line of its output, of both kinds; returns its exit code.

    Raises:
        MissingHere: The program is not installed.
    """
    try:
        running = subprocess.Popen(
            argv,
            executable=find(argv[0], env),
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except FileNotFoundError:
        raise MissingHere(f"the program {argv[0]!r} is not installed here", hint=hint) from None
    with running:
        try:
            for line in running.stdout or ():
                hear(line.rstrip("\n"))
        except BaseException:
            running.terminate()
            raise
    return running.returncode
