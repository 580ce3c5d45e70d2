"""Runs that are entered: what they run, and how they are spoken to."""

from __future__ import annotations

import subprocess

from tests.support.terminal import Terminal

SERVE = """\
import http.server, os, sys, threading
rank = os.environ["RANK"]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"x" * 3_000_000 if self.path == "/large" else f"rank {rank} {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if self.path == "/end":
            threading.Thread(target=server.shutdown).start()
    def log_message(self, *words):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) + int(rank)), Handler)
print("up", flush=True)
server.serve_forever()
"""
"""A server on the loopback of its node, at the given port and the rank's number: it says its rank and the path.

`/large` is 3 MB, and after `/end` it ends.
"""


def served(running: subprocess.Popen[str]) -> str:
    """The address that a `stackctl forward` in the background has announced."""
    assert running.stderr is not None
    for line in running.stderr:
        if " is port " in line:
            return line.partition(" is port ")[0].rpartition(" ")[2]
    raise AssertionError("it has ended")


def try_a_shell(shell: Terminal, rank: int) -> None:
    """See that a shell beside a rank, at a terminal of 33 rows and 77 columns, has a terminal like it, and leave it."""
    shell.type("PS1='re'ady'> '\r")
    shell.sees("ready> ")
    shell.type("echo rank $RANK has $(stty size)\r")
    shell.sees(f"rank {rank} has 33 77")
    shell.resize(40, 100)
    shell.type("until [ \"$(stty size)\" = '40 100' ]; do sleep 0.1; done; echo it is $(stty size)\r")
    shell.sees("it is 40 100")
    shell.type("sh -c 'echo sleeps $((1 + 1)); exec sleep 600'\r")
    shell.sees("sleeps 2")
    shell.type("\x03")
    shell.sees("ready> ")
    shell.type("exit 5\r")
    assert shell.ended() == 5
