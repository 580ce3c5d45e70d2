"""Shipped code on a claim, by its content: sent to a pod's Python as it is, so standard library only.

A file lies under its SHA-256, and a tree, which names its files, under its own. Whatever is there is whole: it is
written beside its place, and moved there at the end; so several may send at once, and who is cut off sends the rest.
"""

import hashlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

AT_ONCE, CHUNK = 16, 1 << 20


def content_path(place: Path, digest: str) -> Path:
    """Where the file with this content lies."""
    return place / "files" / digest[:2] / digest


def tree_path(place: Path, digest: str) -> Path:
    """Where the tree with this content lies."""
    return place / "trees" / f"{digest}.json"


def receive(folder: str, size: str) -> None:
    """Take a tree of so many bytes from standard input; say which of its files are not there, and take them.

    The last line that is printed is the tree's SHA-256.
    """
    os.umask(0o002)  # whoever shares the claim through a group may add to it
    place, source = Path(folder), sys.stdin.buffer
    text = source.read(int(size))
    digest, tree = hashlib.sha256(text).hexdigest(), json.loads(text)
    sizes = {row[1]: row[2] for row in tree["files"]}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        there = list(pool.map(lambda row: _is_there(place, *row), sizes.items()))
    missing = [name for name, is_there in zip(sizes, there, strict=True) if not is_there]
    print(json.dumps(missing), flush=True)
    for name in missing:
        _keep(content_path(place, name), name, sizes[name])
    path = tree_path(place, digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}-{os.uname().nodename}")
    part.write_bytes(text)
    part.replace(path)
    print(digest, flush=True)


def _is_there(place: Path, digest: str, size: int) -> bool:
    path = content_path(place, digest)
    try:
        if path.stat().st_size != size:
            return False
        os.utime(path)  # so that whoever tidies up sees when it was used last
    except FileNotFoundError:
        return False
    except OSError:  # another's
        return True
    return True


def _keep(path: Path, digest: str, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}-{os.uname().nodename}")
    found, left = hashlib.sha256(), size
    try:
        with part.open("wb") as file:
            while left:
                data = sys.stdin.buffer.read(min(CHUNK, left))
                if not data:
                    sys.exit("the connection broke off")
                found.update(data)
                file.write(data)
                left -= len(data)
        if found.hexdigest() != digest:
            sys.exit("a file changed while it was sent")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def unpack(folder: str, digest: str, target: str) -> None:
    """Put a tree together in a folder. What it names is looked at again: others can write to the claim."""
    place = Path(folder)
    try:
        text = tree_path(place, digest).read_bytes()
    except FileNotFoundError:
        sys.exit(f"the code {digest} is not on its claim (any more): submit the job again, which sends it")
    if hashlib.sha256(text).hexdigest() != digest:
        sys.exit(f"the code {digest} is damaged on its claim: remove it there, and submit the job again")
    tree = json.loads(text)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(lambda row: _put(place, Path(target), *row), tree["files"]):
            pass
    for name, link in tree["links"]:
        path = Path(target, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(link)


def _put(place: Path, target: Path, name: str, digest: str, _size: int, mode: int) -> None:
    source, path, found = content_path(place, digest), target / name, hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with source.open("rb") as file, path.open("wb") as copy:
            while data := file.read(CHUNK):
                found.update(data)
                copy.write(data)
    except FileNotFoundError:
        sys.exit(f"{name} is not on the claim (any more): submit the job again, which sends it")
    if found.hexdigest() != digest:
        sys.exit(f"{name} is damaged on the claim: remove {source}, and submit the job again")
    path.chmod(mode)


def run(what: str, *words: str) -> None:
    """What is asked for: `receive` or `unpack`, with its words."""
    (receive if what == "receive" else unpack)(*words)
