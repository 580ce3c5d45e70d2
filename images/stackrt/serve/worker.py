"""One process that loads the model and answers: it is forked before anything slow is imported."""

import json
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any

from stackrt.launch import cpus, gpus
from stackrt.serve import door, guard, watch
from stackrt.serve.found import Model
from stackrt.serve.naming import name_of
from stackrt.serve.options import Options
from stackrt.signals import STOPS
from stackrt.train.errors import TrainerError, complain

LONGEST = 600
"""Characters of an error that are told: what is written into a pipe at once, as JSON, must be short to stay whole."""


@dataclass(frozen=True)
class Task:
    """What workers of one model are to do.

    Attributes:
        listening: The socket, which all workers share, also those of an earlier model.
        tell: Descriptor into which a worker writes lines of JSON for who has started it.
        leave: Descriptor that can be read from once the workers are to leave the socket to others.
        began: When the first of them was started, by the monotonic clock.
        metrics: The folder in which several workers count together; empty for one.
    """

    o: Options
    model: Model
    listening: socket.socket
    tell: int
    leave: int
    began: float
    metrics: str = ""

    @property
    def name(self) -> str:
        """The model's name in requests."""
        return self.o.name or name_of(self.o.model)


def run(task: Task, seat: int) -> int:
    """Load, answer until a signal, and return the exit code.

    While it loads a signal ends it at once: nobody waits for an answer of it.

    Args:
        seat: Its number among the workers.
    """
    for number in STOPS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    _take_gpu(task.o, seat)
    try:
        if task.metrics:
            watch.join(task.metrics)
        return _serve(task)
    except TrainerError as error:
        _tell(task, error=str(error)[:LONGEST])
        return complain(error)


def _serve(task: Task) -> int:
    _set_up_threads(task.o)
    from stackrt.serve import app, server

    state = guard.State()
    application, close = app.make(task.model, task.name, task.o, state)
    serving = server.Server(application, task.o, state, task.leave, left=lambda: _tell(task, left=True))
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, serving.handle_exit)  # from here on requests may come
    host, port = task.listening.getsockname()[:2]
    try:
        task.listening.listen(1024)
    except OSError as error:  # another that began meanwhile was the first to be ready
        close()
        raise door.taken(task.o.host, task.o.port, error) from None
    guard.say("ready", model=task.name, kind=task.model.kind, address=f"http://{_bracketed(host)}:{port}",
              seconds=round(time.monotonic() - task.began, 2), worker=os.getpid())  # fmt: skip
    _tell(task)
    serving.run([task.listening])
    close()
    guard.say("ended", worker=os.getpid())
    return 0


def _tell(task: Task, **more: Any) -> None:
    os.write(task.tell, json.dumps({"worker": os.getpid(), **more}).encode() + b"\n")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _take_gpu(o: Options, seat: int) -> None:
    """See one GPU of several: workers take them in turn. A CUDA program looks at the variable when it begins."""
    found = [] if o.device == "cpu" else gpus.all_visible()
    if len(found) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = found[seat % len(found)]


def _set_up_threads(o: Options) -> None:
    os.environ.update(cpus.sleeping_soon())
    import torch

    torch.set_num_threads(o.threads or max(1, cpus.usable().at_once // o.workers))


def leave_process(code: int) -> None:
    """End a forked process as it is."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
