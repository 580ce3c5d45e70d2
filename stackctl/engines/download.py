"""Fetch files over HTTP: hashes checked, goes on where it stopped, never leaves half a file under its name."""

from __future__ import annotations

import base64
import errno
import hashlib
import shutil
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO

import msgspec

from stackctl.errors import JobFailed, MissingHere

AT_ONCE = 4
SECONDS = 30
TRIES = 6
"""Failures in a row, without a byte between them, before a download is given up."""
_CHUNK = 1 << 20


class File(msgspec.Struct, frozen=True):
    """A file to fetch. `size` is in bytes, None where nobody says; `sha256` lists the digests that are allowed, in hex.

    `wanted_by` is the file and line that asks for it, and `told_by` what says the digests, for errors.
    """

    name: str
    url: str
    size: int | None
    sha256: tuple[str, ...]
    wanted_by: str
    told_by: str = "the lock"


class Downloader:
    """Fetches files over HTTP(S), or copies them from a `file:` address.

    Args:
        ca: Certificates to trust; the system's if None.
        logins: Host -> `user:password`.
        heard: Called for each piece of a file, with its name, the bytes that are here, and its size if that is known.
    """

    def __init__(
        self,
        ca: Path | None = None,
        logins: Mapping[str, str] | None = None,
        heard: Callable[[str, int, int | None], None] | None = None,
    ) -> None:
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
        self._opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
        self._logins = dict(logins or {})
        self._heard = heard
        self._stop = threading.Event()

    def size(self, url: str) -> int | None:
        """Bytes that a server says a file has; None if it does not say or does not answer."""
        try:
            with self._open(_request(url, "HEAD")) as answer:
                said = answer.headers.get("Content-Length")
        except urllib.error.HTTPError as error:
            error.close()
            return None
        except (OSError, HTTPException):
            return None
        return int(said) if said else None

    def fetch_all(self, files: Sequence[File], folder: Path, done: Callable[[File], None]) -> None:
        """Fetch files into a folder, a few at once; `done` hears of each in the caller's thread's pool.

        What was fetched before an error or an interrupt stays, and the next call goes on from there.

        Raises:
            JobFailed: A file cannot be had, or is not what it should be.
            MissingHere: The disk is full.
        """

        def one(file: File) -> None:
            self.fetch(file, folder)
            done(file)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                tasks = [pool.submit(one, file) for file in files]
                finished, _ = wait(tasks, return_when=FIRST_EXCEPTION)
                for task in finished:
                    task.result()
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def fetch(self, file: File, folder: Path) -> None:
        """Fetch one file. Raises as `fetch_all`."""
        part = folder / f".{file.name}.part"
        goes_on = part.exists()
        try:
            if file.url.startswith("file:"):
                with _source(file) as source, part.open("wb") as out:
                    shutil.copyfileobj(source, out, _CHUNK)
            else:
                self._http(file, part)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            part.unlink(missing_ok=True)
            raise MissingHere(
                f"the disk is full: no room for {file.name}", where=str(folder), hint="make room, then run this again"
            ) from None
        found = sha256(part)
        if found not in file.sha256:
            part.unlink()
            if goes_on:  # its beginning may be of another address, or of an older file
                self.fetch(file, folder)
                return
            raise JobFailed(
                f"{file.name} has another hash than {file.told_by}: {found}",
                where=file.wanted_by,
                hint="the index or mirror serves another file; do not use it before you know why",
            )
        part.rename(folder / file.name)

    def _http(self, file: File, part: Path) -> None:
        failures = 0
        while True:
            begun = part.stat().st_size if part.exists() else 0
            try:
                if self._append(file, part, begun):
                    return
                reason = "the connection ended early"
            except urllib.error.HTTPError as error:
                error.close()
                if error.code == 416 and begun:  # what lies here is no beginning of that file
                    part.unlink()
                elif error.code < 500 and error.code not in {408, 429}:
                    raise JobFailed(
                        f"the server answers {error.code} {error.reason} to {_plain(file.url)}",
                        where=file.wanted_by,
                        hint=f"{file.told_by} names a file that is gone, or you may not read it; see docs/settings.md",
                    ) from None
                reason = f"{error.code} {error.reason}"
            except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError) as error:
                reason = str(getattr(error, "reason", error)) or type(error).__name__
            got_more = part.exists() and part.stat().st_size > begun
            failures = 1 if got_more else failures + 1
            if failures >= TRIES:
                raise JobFailed(
                    f"{file.name} cannot be fetched from {_plain(file.url)}: {reason}",
                    where=file.wanted_by,
                    hint="run this again when the network is back: it goes on where it stopped",
                )
            if self._stop.wait(2 ** (failures - 1) / 2):
                raise JobFailed("stopped")

    def _append(self, file: File, part: Path, begun: int) -> bool:
        """Read from byte `begun` to the end; False if the connection ended before that."""
        request = _request(file.url)
        if begun:
            request.add_header("Range", f"bytes={begun}-")
        with self._open(request) as answer:
            whole = answer.headers.get("Content-Length")
            left = int(whole) if whole else None
            resumed = answer.status == 206
            with part.open("ab" if resumed else "wb") as out:
                while chunk := answer.read(_CHUNK):
                    if self._stop.is_set():
                        raise JobFailed("stopped")
                    out.write(chunk)
                    left = None if left is None else left - len(chunk)
                    if self._heard:
                        self._heard(file.name, out.tell(), file.size)
        return left in (None, 0)

    def _open(self, request: urllib.request.Request) -> HTTPResponse:
        parts = urllib.parse.urlsplit(request.full_url)
        login = urllib.parse.unquote(parts.netloc.rpartition("@")[0]) or self._logins.get(parts.hostname or "")
        if login:
            request.full_url = _plain(request.full_url)
            # Unredirected: a mirror may send on to another host, which the password is not for.
            request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
        answer: HTTPResponse = self._opener.open(request, timeout=SECONDS)
        return answer


def _source(file: File) -> BinaryIO:
    """The file of a `file:` address. What is wrong with it must not be taken for what is wrong with the folder here.

    Raises:
        FileNotFoundError: It is not there.
        JobFailed: It cannot be read.
    """
    try:
        return Path(urllib.request.url2pathname(urllib.parse.urlsplit(file.url).path)).open("rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise JobFailed(
            f"{file.name} cannot be read: {error.strerror}", where=file.wanted_by, hint="let this user read it"
        ) from None


def sha256(path: Path) -> str:
    """The digest of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def login_of(addresses: Iterable[str]) -> dict[str, str]:
    """Host -> `user:password`, of the addresses that hold one."""
    found = {}
    for address in addresses:
        parts = urllib.parse.urlsplit(address)
        if parts.hostname and "@" in parts.netloc:
            found[parts.hostname] = urllib.parse.unquote(parts.netloc.rpartition("@")[0])
    return found


def _request(url: str, method: str = "GET") -> urllib.request.Request:
    if not url.startswith(("http://", "https://")):
        raise JobFailed(f"no address to fetch a file from: {_plain(url)}")
    return urllib.request.Request(url, method=method)  # noqa: S310 - the scheme is checked above


def _plain(url: str) -> str:
    """An address without its user and password."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
