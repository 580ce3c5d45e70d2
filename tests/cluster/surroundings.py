"""What stands around a cluster, for real: registries that refuse or never answer, and admission webhooks."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.cluster.harness import images, programs
from tests.cluster.harness.cluster import OwnCluster
from tests.machine import registry_program
from tests.support.ports import free_port
from tests.support.waiting import until

NOBODY = "nobody:$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC\n"
"""A line of htpasswd's form: there is one user, and no test knows the password."""

Review = Callable[[dict[str, Any]], dict[str, Any]]


@contextmanager
def registry(cluster: OwnCluster, folder: Path, *, locked: bool = False) -> Iterator[str]:
    """A registry that the nodes reach; gives its address. A locked one lets nobody in."""
    folder.mkdir()
    (folder / "htpasswd").write_text(NOBODY)
    more = f"auth: {{htpasswd: {{realm: test, path: '{folder}/htpasswd'}}}}\n" if locked else ""
    address = f"{cluster.site.host}:{free_port(cluster.site.host)}"
    (folder / "config.yml").write_text(
        f"version: 0.1\nhttp: {{addr: '{address}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: '{folder}/data'}}}}\n{more}"
    )
    argv = [registry_program(), "serve", str(folder / "config.yml")]
    with (folder / "log").open("w") as log, subprocess.Popen(argv, stdout=log, stderr=log) as running:
        try:
            until(lambda: "listening on" in (folder / "log").read_text(), 60)
            trust(cluster, address)
            yield address
        finally:
            running.terminate()


@contextmanager
def silent_registry(cluster: OwnCluster) -> Iterator[str]:
    """What takes connections and never says a word; gives its address."""
    with socket.create_server((cluster.site.host, 0)) as server:
        address = f"{cluster.site.host}:{server.getsockname()[1]}"
        trust(cluster, address)
        yield address


def trust(cluster: OwnCluster, address: str) -> None:
    """Have every node's containerd take a registry without encryption."""
    for index in range(len(cluster.nodes)):
        folder = cluster.site.node_folder(index) / "certs.d" / address
        folder.mkdir(parents=True)
        (folder / "hosts.toml").write_text(f'server = "http://{address}"\n[host."http://{address}"]\n')


def upload_bare_image(address: str, name: str) -> str:
    """Put an image into a registry that holds one program, and no Python; returns the image's full name."""
    layer = images.tar({"pause": Path(programs.program("pause")).read_bytes()})
    rootfs = {"type": "layers", "diff_ids": [images.digest(layer)]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()
    kinds = ((config, images.CONFIG), (layer, images.LAYER))
    first, second = ({"mediaType": kind, "digest": images.digest(blob), "size": len(blob)} for blob, kind in kinds)
    manifest = {"schemaVersion": 2, "mediaType": images.MANIFEST, "config": first, "layers": [second]}
    connection = http.client.HTTPConnection(address, timeout=20)

    def send(method: str, path: str, body: bytes = b"", kind: str = "application/octet-stream") -> str:
        connection.request(method, path, body, {"Content-Type": kind})
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status in (201, 202), text
        return answer.headers["Location"]

    for blob, _ in kinds:
        place = send("POST", f"/v2/{name}/blobs/uploads/")
        send("PUT", f"{place.removeprefix(f'http://{address}')}&digest={images.digest(blob)}", blob)
    send("PUT", f"/v2/{name}/manifests/1", json.dumps(manifest).encode(), images.MANIFEST)
    connection.close()
    return f"{address}/{name}:1"


@contextmanager
def webhook(
    cluster: OwnCluster, namespace: str, folder: Path, kind: str, resource: str, review: Review
) -> Iterator[None]:
    """An admission webhook for what is created in a namespace.

    Args:
        kind: `Validating` or `Mutating`.
        resource: As `pods` or `jobs`.
        review: From the request's object to the response, without its uid.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["request"]
            said = {"uid": asked["uid"], **review(asked["object"])}
            body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": said})
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    certificate, key = certify(folder, cluster.site.host)
    server = ThreadingHTTPServer((cluster.site.host, 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    group, version = ("batch", "v1") if resource == "jobs" else ("", "v1")
    rule = {"apiGroups": [group], "apiVersions": [version], "operations": ["CREATE"], "resources": [resource]}
    client = {
        "url": f"https://{cluster.site.host}:{server.server_port}/",
        "caBundle": base64.b64encode(certificate.read_bytes()).decode(),
    }
    hook = {
        "name": "policy.stackctl.test",
        "clientConfig": client,
        "rules": [rule],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "timeoutSeconds": 5,
    }
    about = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": f"{kind}WebhookConfiguration"}
    cluster.apply({**about, "metadata": {"name": namespace}, "webhooks": [hook]})
    try:
        yield
    finally:
        cluster.kubectl("delete", f"{kind}WebhookConfiguration".lower(), namespace)
        server.shutdown()
        server.server_close()


def certify(folder: Path, host: str) -> tuple[Path, Path]:
    """A certificate for an address, signed by itself, and its key."""
    certificate, key = folder / "webhook.crt", folder / "webhook.key"
    made = [
        "-subj",
        "/CN=webhook",
        "-addext",
        f"subjectAltName=IP:{host}",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    argv = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", *made]
    subprocess.run(argv, check=True, capture_output=True)
    return certificate, key
