"""Serve a trained model over HTTP.

    python -m stackrt.serve runs/mine/export                  a language model: OpenAI's API
    python -m stackrt.serve runs/mine/model.keras --port 0    a Keras model: TensorFlow Serving's REST API, and v2

GET /health/live, /health/ready and /metrics are for whoever watches over it. Each request is a line of JSON in the log.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from stackrt.launch import cpus
from stackrt.launch.guard import die_with
from stackrt.serve import found as models
from stackrt.serve import memory, options, watch
from stackrt.serve.naming import name_of
from stackrt.serve.options import Options
from stackrt.signals import STOPS, handled
from stackrt.train.errors import BadInputError, TrainerError, complain

FAILED_STARTS = 3
"""In a row, after which a worker is not started again."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal; returns the exit code."""
    began = time.monotonic()
    try:
        o = options.parse(sys.argv[1:] if argv is None else argv)
        model = models.find(o.model)
        most = int(o.memory * (1 << 30)) or memory.limit()
        memory.check(model, dtype=o.dtype, context=o.context, batch=o.max_batch, workers=o.workers, most=most)
        with _listening(o) as listening, watch.shared(o.workers):
            return _worker(o, model, listening, began) if o.workers == 1 else _workers(o, model, listening, began)
    except TrainerError as error:
        return complain(error)


def _listening(o: Options) -> socket.socket:
    """The socket, which all workers share.

    Raises:
        BadInputError: The port is in use, or not ours to take.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(o.host, o.port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except UnicodeError:
        raise BadInputError(f"--host {o.host}: is no name of a host") from None
    except OSError as error:
        raise _taken(o, error) from None
    return listening


def _taken(o: Options, error: OSError) -> BadInputError:
    return BadInputError(f"--host {o.host} --port {o.port}: {error.strerror}; choose another port, 0 for any")


def _worker(o: Options, model: models.Model, listening: socket.socket, began: float) -> int:
    from stackrt.serve import guard

    stopped: list[int] = []
    with handled(stopped.append):  # until the server itself listens to signals
        _set_up_threads(o)
        from stackrt.serve import app, server

        state = guard.State()
        application, close = app.make(model, o.name or name_of(o.model), o, state)
        if stopped:
            close()
            return 0
    host, port = listening.getsockname()[:2]
    try:
        listening.listen(1024)
    except OSError as error:  # another that began meanwhile was the first to be ready
        close()
        raise _taken(o, error) from None
    guard.say("ready", model=o.name or name_of(o.model), kind=model.kind, address=f"http://{_bracketed(host)}:{port}",
              seconds=round(time.monotonic() - began, 2), worker=os.getpid())  # fmt: skip
    serving = server.Server(application, o, state)
    serving.run([listening])
    close()
    guard.say("ended", worker=os.getpid())
    return 0


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _set_up_threads(o: Options) -> None:
    import torch

    torch.set_num_threads(o.threads or max(1, cpus.usable().at_once // o.workers))


def _workers(o: Options, model: models.Model, listening: socket.socket, began: float) -> int:
    """Keep as many workers as were asked for, each forked before anything is loaded."""
    from stackrt.serve import guard

    alive: dict[int, float] = {}
    stopping, failed = False, 0
    arm = die_with(os.getpid())  # a worker that outlived this process would keep the port

    def pass_on(number: int) -> None:
        nonlocal stopping
        stopping = True
        for worker in alive:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(worker, number)

    def start() -> None:
        # A signal that comes now waits until it can be passed on, or until the worker can hear it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        worker = None if stopping else os.fork()
        if worker != 0:
            if worker:
                alive[worker] = time.monotonic()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return
        code = 1
        try:
            if arm:
                arm()
            for number in STOPS:
                if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
                    signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            code = _worker(o, model, listening, began)
        except TrainerError as error:
            code = complain(error)
        finally:
            sys.stdout.flush()
            os._exit(code)

    with handled(pass_on):
        for _ in range(o.workers):
            start()
        while alive:
            worker, status = os.wait()
            lived = time.monotonic() - alive.pop(worker, time.monotonic())
            watch.ended(worker)
            if stopping:
                continue
            code = os.waitstatus_to_exitcode(status)
            guard.say("worker-ended", worker=worker, code=code)
            failed = failed + 1 if lived < 30 else 0
            if code == BadInputError.exit_code or failed >= FAILED_STARTS:
                pass_on(signal.SIGTERM)
                while alive:
                    alive.pop(os.wait()[0], None)
                return code if code > 0 else 1
            start()
    return 0


if __name__ == "__main__":
    sys.exit(main())
