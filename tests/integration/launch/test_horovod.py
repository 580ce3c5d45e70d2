"""Horovod's rendezvous server as a helper of node 0, with a stand-in for Horovod's own modules."""

import os
import sys
from pathlib import Path

import pytest

from tests.support.launchers import Job

pytestmark = pytest.mark.needs("linux")  # the drills find processes through /proc

IMAGES = Path(__file__).parents[3] / "images"
HOSTS = """
class Host:
    def __init__(self, text):
        self.slots = int(text.split(":")[1])
def parse_hosts(text): return [Host(part) for part in text.split(",")]
def get_host_assignments(hosts, count): return ["slot"] * count
"""
SERVER = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class RendezvousHandler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(str(self.server.plan).encode())
    def log_message(self, *_): pass
class RendezvousHTTPServer(HTTPServer):
    def __init__(self, address, handler, verbose):
        import time; time.sleep(0.5)
        super().__init__(address, handler)
    def init(self, plan): self.plan = len(plan)
"""
RANK = """
import os, urllib.request
host, port = os.environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"], os.environ["HOROVOD_GLOO_RENDEZVOUS_PORT"]
print(urllib.request.urlopen(f"http://{host}:{port}/").read().decode(), os.environ["HOROVOD_SIZE"])
"""


def test_the_server_listens_before_any_rank_starts_and_ends_with_the_job(job: Job) -> None:
    for module, text in (("common/util/hosts", HOSTS), ("http/http_server", SERVER)):
        path = job.folder / "fake" / "horovod" / "runner" / f"{module}.py"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    search = f"{IMAGES}{os.pathsep}{job.folder / 'fake'}"
    nodes = job.pair(sys.executable, "-c", RANK, STACK_FRAMEWORK="horovod", PYTHONPATH=search)
    assert [node.wait() for node in nodes] == [0, 0], nodes[0].out + nodes[0].err
    assert all(job.log(rank) == "4 4\n" for rank in range(4))
    job.gone()


def test_without_horovod_the_job_ends_with_78(job: Job) -> None:
    nodes = job.pair("true", STACK_FRAMEWORK="horovod")
    assert [node.wait() for node in nodes] == [78, 78]
    assert all("Horovod's rendezvous server did not start" in node.err for node in nodes)
    assert "No module named 'horovod'" in nodes[0].err
