"""What a framework needs on node 0 before its ranks start."""

import os
import subprocess
import sys
from collections.abc import Callable

from stackrt.frameworks import FRAMEWORKS, horovod_hosts
from stackrt.launch.guard import die_with
from stackrt.launch.horovod import READY
from stackrt.launch.layout import Layout
from stackrt.launch.loop import READ, Loop
from stackrt.launch.output import Console
from stackrt.launch.ports import listen
from stackrt.launch.store import Store

Done = Callable[[str | None], None]
"""Called with None when all is ready, else with what is wrong."""


class Helper:
    """Serves torch's store, or runs Horovod's rendezvous server, for as long as node 0's launcher lives."""

    def __init__(self, loop: Loop, console: Console) -> None:
        self._loop, self._console = loop, console
        self._child: subprocess.Popen[bytes] | None = None
        self._store: Store | None = None

    def prepare(self, layout: Layout, done: Done) -> None:
        """Start what the framework needs, and call `done` once it answers.

        Horovod's ranks look for the server three times within 1.5 s, so it must listen before they start.
        """
        if FRAMEWORKS[layout.framework].server != "horovod":
            done(self._serve_store(layout) if layout.agent_store else None)
            return
        command = [sys.executable, "-m", "stackrt.launch.horovod", str(layout.port), horovod_hosts(layout)]
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            preexec_fn=die_with(os.getpid()),  # noqa: PLW1509
        )
        self._child = child
        assert child.stdout is not None  # noqa: S101 - for the type checker
        pipe = child.stdout.fileno()

        def answer() -> None:
            self._loop.unwatch(pipe)
            ready = os.read(pipe, len(READY)) == READY
            wrong = "Horovod's rendezvous server did not start (its message is above); is horovod installed here?"
            done(None if ready else wrong)

        self._loop.watch(pipe, READ, answer)

    def _serve_store(self, layout: Layout) -> str | None:
        try:
            self._store = Store(self._loop, listen(layout.address, layout.port), self._console)
        except OSError as error:
            return f"torch's store can't listen on port {layout.port}: {error.strerror}"
        return None

    def close(self) -> None:
        """End it."""
        if self._store is not None:
            self._store.close()
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            if self._child.stdout is not None:
                self._child.stdout.close()
