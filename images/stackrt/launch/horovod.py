"""Horovod's own rendezvous server as a child process of node 0's launcher: the only module that imports horovod.

`python -m stackrt.launch.horovod PORT HOSTS` prints `ready` once it listens, and serves until it is killed. Horovod's
`RendezvousServer` always takes a random port, so this starts the HTTP server below it on the agreed one.
"""

import signal
import sys

from stackrt.signals import NOTICES, STOPS

READY = b"ready\n"


def main() -> None:
    """Serve on PORT for the ranks of HOSTS (`node-0:2,node-1:2`)."""
    from horovod.runner.common.util.hosts import (  # type: ignore[import-not-found, unused-ignore]
        get_host_assignments,
        parse_hosts,
    )
    from horovod.runner.http.http_server import (  # type: ignore[import-not-found, unused-ignore]
        RendezvousHandler,
        RendezvousHTTPServer,
    )

    for number in (*STOPS, *NOTICES):
        signal.signal(number, signal.SIG_IGN)  # the launcher ends us, once the ranks have ended
    hosts = parse_hosts(sys.argv[2])
    server = RendezvousHTTPServer(("", int(sys.argv[1])), RendezvousHandler, 0)
    server.init(get_host_assignments(hosts, sum(host.slots for host in hosts)))
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
