"""What the nodes can run: images of the Docker engine.

An image of the training stack has 1.7 GB. So a node does not get a copy: its containerd is told of the engine's own
unpacked layers, which it uses where they are. That takes a second, and works with the engine's overlay2 store; from
another one the image is copied. Layers are only read, by the engine and by the nodes.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tests.cluster.harness import programs
from tests.cluster.harness.site import PAUSE

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class Layer:
    """One layer of an image in the engine's store."""

    diff: str
    """The digest of its archive."""
    chain: str
    """The digest of it and all below it, which is its name for containerd."""
    folder: str
    """Its name in the engine's folder of unpacked layers."""
    size: int


@dataclass(frozen=True)
class Containerd:
    """The containerd of one node."""

    socket: Path
    root: Path
    """Where its files are; to itself this is /var/lib/containerd."""
    layers: Path
    """Where it sees the engine's unpacked layers."""

    def ctr(self, *words: str, given: bytes | None = None) -> str:
        """Run containerd's own client; returns its output."""
        argv = ["ctr", f"--address={self.socket}", "--namespace=k8s.io", *words]
        done = subprocess.run(argv, input=given, capture_output=True, check=False)
        assert done.returncode == 0, f"ctr {' '.join(words)}: {done.stderr.decode()[-2000:]}"
        return done.stdout.decode()

    def load(self, tag: str) -> None:
        """Bring an image from the Docker engine."""
        store = engine_store()
        if store is None:
            saved = subprocess.run(["docker", "image", "save", tag], check=True, capture_output=True).stdout
            self.ctr("images", "import", "-", given=saved)
            return
        config = (store / "image/overlay2/imagedb/content/sha256" / engine_id(tag).removeprefix("sha256:")).read_bytes()
        layers = layers_of(config, store)
        present = set(self.ctr("snapshots", "list").split())
        below = ""
        for layer in layers:
            if layer.chain not in present:
                self.share(layer, below)
            below = layer.chain
        self.ctr("images", "import", "--no-unpack", "-", given=archive(tag, config, layers))

    def share(self, layer: Layer, below: str) -> None:
        """Make a layer of the engine's a snapshot on top of the one `below`: its folder becomes a link."""
        parent = [below] if below else []
        mount = json.loads(self.ctr("snapshots", "prepare", "--mounts", f"new-{layer.chain}", *parent))[0]
        options = [word.removeprefix("upperdir=") for word in mount["Options"] if word.startswith("upperdir=")]
        place = self.root / Path((options or [mount["Source"]])[0]).relative_to("/var/lib/containerd")
        place.rmdir()
        place.symlink_to(self.layers / layer.folder / "diff")
        self.ctr("snapshots", "commit", layer.chain, f"new-{layer.chain}")

    def load_pause(self) -> None:
        """Bring the image of the pods' first process, made from our own program."""
        program = Path(programs.program("pause"))
        layer = tar({program.name: program.read_bytes()})
        description = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": [f"/{program.name}"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
        }
        layers = [Layer(digest(layer), digest(layer), "", len(layer))]
        whole = archive(PAUSE, json.dumps(description).encode(), layers, {digest(layer): layer})
        self.ctr("images", "import", "-", given=whole)


def engine_id(tag: str) -> str:
    """The Docker engine's id of an image: its configuration's digest."""
    argv = ["docker", "image", "inspect", "--format", "{{.Id}}", tag]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


@functools.cache
def engine_store() -> Path | None:
    """The folder of the Docker engine, if it is there and keeps images as unpacked layers."""
    argv = ["docker", "info", "--format", "{{.Driver}} {{.DockerRootDir}}"]
    answer = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    driver, _, folder = answer.strip().partition(" ")
    return Path(folder) if driver == "overlay2" and Path(folder, "image", "overlay2").is_dir() else None


def layers_of(config: bytes, store: Path) -> list[Layer]:
    """The layers of an image, the lowest first, as the engine has them."""
    layers: list[Layer] = []
    for diff in json.loads(config)["rootfs"]["diff_ids"]:
        chain = digest(f"{layers[-1].chain} {diff}".encode()) if layers else diff
        facts = store / "image/overlay2/layerdb/sha256" / chain.removeprefix("sha256:")
        layers.append(Layer(diff, chain, (facts / "cache-id").read_text(), int((facts / "size").read_text())))
    return layers


def archive(tag: str, config: bytes, layers: list[Layer], blobs: Mapping[str, bytes] = MappingProxyType({})) -> bytes:
    """An image archive in OCI's layout. It holds only the blobs that are given: unpacked layers are not asked for."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest(config), "size": len(config)},
        "layers": [{"mediaType": LAYER, "digest": layer.diff, "size": layer.size} for layer in layers],
    }
    name = tag if "/" in tag else f"docker.io/library/{tag}"
    body = json.dumps(manifest).encode()
    entry = {"mediaType": MANIFEST, "digest": digest(body), "size": len(body)}
    index = {"schemaVersion": 2, "manifests": [{**entry, "annotations": {"io.containerd.image.name": name}}]}
    content = {**blobs, digest(body): body, digest(config): config}
    files = {f"blobs/{key.replace(':', '/')}": value for key, value in content.items()}
    return tar({"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode(), **files})


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for name, body in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(body), 0o755
            out.addfile(entry, io.BytesIO(body))
    return buffer.getvalue()
