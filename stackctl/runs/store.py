"""Where runs live: a folder each, with the job, its state, logs, metrics and results."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from stackctl import folders
from stackctl.errors import InvalidInput, MissingHere, NameTaken
from stackctl.jobs.job import Job, check
from stackctl.jobs.serving import is_service
from stackctl.jobs.via import JOB
from stackctl.runs.states import State

T = TypeVar("T")

_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""What a file that is no JSON of ours raises."""

PRIVATE = 0o600
"""Mode of files with a job's environment, which may hold a key."""

EARLIER = "earlier"
"""Within the folder of a run on a cluster: what is left of earlier runs of its name."""

SEPARATOR = "@"
"""Behind a run's name in the name of a folder: where in which cluster the run is."""

IMAGE_USER = (1000, 1000)
"""The uid and gid that our images name."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """run.json: what is known of a run beside its job. Times are UTC, ISO 8601.

    `workdir` is the folder that it was started in. `namespace`, `context` and `server` say where in which cluster a run
    on Kubernetes is, `uid` who it is there, `claim` which volume claim keeps its outputs, and `node_choice` what
    a pod that reads them takes over from its pods; `via` is what stands for the run there. `state` is then as it was
    at the time `seen`. Of a service here, `publish` is its port, and `token_file` the file of its token.
    """

    name: str
    backend: str
    attempt: int
    started: str
    state: State = "running"
    ended: str = ""
    exit_code: int | None = None
    image: str = ""
    workdir: str = ""
    namespace: str = ""
    context: str = ""
    server: str = ""
    uid: str = ""
    seen: str = ""
    claim: str = ""
    node_choice: dict[str, Any] = {}
    via: str = JOB
    publish: int = 0
    token_file: str = ""


def home(env: Mapping[str, str]) -> Path:
    """The folder of all runs: STACK_RUNS, else the platform's folder for user data."""
    if env.get("STACK_RUNS"):
        return folders.expanded(env["STACK_RUNS"]).absolute()
    return folders.data() / "runs"


def new_name(stem: str, now: datetime) -> str:
    """A run's name from what it runs and when: `gpt-1122-031500`."""
    plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in stem.lower()).strip("-")[:30].strip("-")
    return f"{plain or 'run'}-{now:%m%d-%H%M%S}"


def create(folder: Path, job: Job, *, resume: bool) -> int:
    """Make a run's folder and write its job there; or, to resume, put the earlier attempt's outcome aside.

    Returns:
        The attempt: 1, or one more than the last with `resume`.

    Raises:
        NameTaken: The folder holds a run, and `resume` is not set.
        InvalidInput: There is something else in the folder.
        MissingHere: It cannot be made.
    """
    file = folder / "job.json"
    if resume:
        attempt = _newest_attempt(folder) + 1
        _put_aside(folder, attempt - 1)
        return attempt
    strange = _strange(folder)
    if file.exists():  # looked for last: another run may be about to take the folder
        hint = "choose another --name or --out, or go on from its last checkpoint with --resume"
        if is_service(job):  # which has neither of the two
            hint = "choose another --name"
        raise NameTaken("this folder holds a run", where=str(folder), hint=hint)
    if strange:
        raise InvalidInput("is there already, and is no run's folder", where=str(folder), hint="choose another --out")
    _make(folder)
    try:
        write_json(file, job, mode=PRIVATE, new=True)
    except FileExistsError:
        raise NameTaken("another run has just taken this folder", where=str(folder)) from None
    except OSError as error:
        hint = "make room, or choose another --out; nothing was started"
        raise MissingHere(f"cannot be written: {error.strerror}", where=str(file), hint=hint) from None
    return 1


def _strange(folder: Path) -> bool:
    """Whether there is something that is neither an empty folder nor one in which a run's job.json is being written."""
    if not folder.is_dir():
        return os.path.lexists(folder)
    return any(not path.name.startswith(".job.json.") for path in folder.iterdir())


def _newest_attempt(folder: Path) -> int:
    """The newest attempt of a run, by its record and by the logs that are there: no log is written over."""
    record = read_record(folder)
    logs = [path.name.removeprefix("attempt-") for path in (folder / "logs").glob("attempt-*")]
    return max([record.attempt if record else 0, *(int(name) for name in logs if name.isascii() and name.isdigit())])


def read_job(folder: Path) -> Job:
    """The job of a run.

    Raises:
        InvalidInput: There is no run in the folder, or its job.json is not whole.
    """
    file = folder / "job.json"
    try:
        job = _decode(file.read_bytes(), Job)
        check(job)
        return job
    except InvalidInput as error:
        raise InvalidInput(f"is not a job: {error.where}: {error.message}", where=str(file)) from None
    except FileNotFoundError:
        if (folder / "run.json").exists():
            raise InvalidInput("is not there: it is not known what this run is", where=str(file)) from None
        raise InvalidInput(
            "there is no run to resume", where=str(folder), hint="leave out --resume to start one"
        ) from None
    except _UNREADABLE as error:
        raise InvalidInput(f"is not a job: {error}", where=str(file)) from None


def submitted(folder: Path, job: Job, record: Record) -> None:
    """Write a run on a cluster down; one of the same name and place that was there before is put aside."""
    free_for(folder, record)
    before = read_record(folder)
    if before is not None and before.uid and before.uid == record.uid:  # a submission that was repeated
        record = msgspec.structs.replace(record, started=before.started)
    elif before is not None:
        _put_away(folder, before)
    _make(folder)
    write_json(folder / "job.json", job, mode=PRIVATE)
    write_json(folder / "run.json", record)


def free_for(folder: Path, record: Record) -> None:
    """See that a run on a cluster can be written down here.

    Raises:
        NameTaken: The folder holds another run: one of this machine, or of another cluster or namespace.
    """
    there = read_record(folder)
    same = there is not None and same_place(there, record)
    if folder.exists() and not same and any(folder.iterdir()):
        raise NameTaken("this folder holds another run", where=str(folder), hint="choose another --name")


def is_of_a_cluster(record: Record) -> bool:
    """Whether a run is one of a cluster: only those have a namespace."""
    return bool(record.namespace)


def same_place(one: Record, other: Record) -> bool:
    """Whether two runs on clusters are in the same namespace of the same cluster, as far as is known."""
    known = bool(one.server and other.server)
    return (one.backend, one.namespace, one.context, one.server * known) == (
        other.backend,
        other.namespace,
        other.context,
        other.server * known,
    )


def find_record(folder: Path) -> Record | None:
    """The record of a run; None if there is no run in the folder.

    Raises:
        InvalidInput: There is one, and its record is absent or cannot be read.
    """
    file = folder / "run.json"
    hint = f"its logs are in {folder / 'logs'}"
    try:
        return _decode(file.read_bytes(), Record)
    except (FileNotFoundError, NotADirectoryError):
        if not os.path.exists(folder / "job.json"):  # noqa: PTH110 - pathlib's raises where we may not look
            return None
        raise InvalidInput("is not there: it is not known how this run fares", where=str(file), hint=hint) from None
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}", where=str(file)) from None
    except _UNREADABLE as error:
        said = f"is damaged, or of another version of stackctl: {error}"
        raise InvalidInput(said, where=str(file), hint=hint) from None


def read_record(folder: Path) -> Record | None:
    """The record of a run; None if the folder holds none that can be read."""
    try:
        return find_record(folder)
    except InvalidInput:
        return None


def records(home: Path, lost: Callable[[InvalidInput], None] = lambda _error: None) -> list[Record]:
    """Every run in the store, the newest first, each by the name of its folder, which may have been renamed.

    Args:
        lost: Is told of each run.json that cannot be read.
    """
    try:
        names = os.listdir(home)  # noqa: PTH208 - a store may hold thousands
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        try:
            record = find_record(home / name)
        except InvalidInput as error:
            if os.path.lexists(error.where):  # else it may just be starting
                lost(error)
            continue
        if record is not None:
            found.append(named(record, name))
    return sorted(found, key=lambda record: record.started, reverse=True)


def named(record: Record, folder: str) -> Record:
    """A record by the name of its folder."""
    name = folder.partition(SEPARATOR)[0] if is_of_a_cluster(record) else folder
    return record if record.name == name else msgspec.structs.replace(record, name=name)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = "STACK_RUNS names another folder for runs"
        raise MissingHere(f"cannot be made: {error.strerror}", where=str(folder), hint=hint) from None


def _put_aside(folder: Path, attempt: int) -> None:
    """Move an attempt's outcome to its logs, so that it cannot be taken for that of the next."""
    logs = folder / "logs" / f"attempt-{attempt}"
    for name in ("result.json", "failure.json"):
        if (folder / name).exists():
            logs.mkdir(parents=True, exist_ok=True)
            (folder / name).replace(logs / name)


def _put_away(folder: Path, before: Record) -> None:
    """Move all of an earlier run of the same name and place into a folder of its own, by when it was started."""
    stamp = before.started.replace(":", "")
    names = [stamp, *(f"{stamp}-{number}" for number in range(2, 1000))]
    aside = next(path for path in (folder / EARLIER / name for name in names) if not path.exists())
    entries = [path for path in folder.iterdir() if path.name != EARLIER]
    aside.mkdir(parents=True)
    for path in entries:
        path.rename(aside / path.name)


def write_json(path: Path, value: object, *, mode: int = 0o666, new: bool = False) -> None:
    """Write one JSON file whole or not at all.

    Args:
        mode: Who may read it, less what the umask takes away.
        new: Only if it is not there; another stackctl may be about to write the same.

    Raises:
        FileExistsError: It is there, with `new`.
        OSError: It cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")  # several may write it: `wait` beside `logs -f`
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with open(handle, "wb") as opened:  # noqa: PTH123 - of a descriptor, for its mode
            opened.write(to_json(value))
        if new:
            _put_new(part, path, mode)
        else:
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _put_new(part: Path, path: Path, mode: int) -> None:
    try:
        path.hardlink_to(part)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, mode))
        part.replace(path)


def to_json(value: object) -> bytes:
    """A value as JSON, for files and for `--json`."""
    try:
        return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
    except UnicodeEncodeError:  # names of files need not be UTF-8; JSON can hold them in escapes
        import json

        return json.dumps(msgspec.to_builtins(value), indent=2).encode() + b"\n"


def _decode(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError:  # as for names that are not UTF-8, and NaN, which Python writes
        import json

        return msgspec.convert(json.loads(data), kind)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if the file is absent, not whole, or none: a pipe would keep us waiting."""
    try:
        return _decode(path.read_bytes(), dict[str, Any]) if path.is_file() else None
    except (OSError, *_UNREADABLE):
        return None


def now() -> str:
    """The time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def container_user(workdir: Path) -> tuple[int, int]:
    """The uid and gid that containers run as and that their outputs belong to: the caller's.

    Under sudo it is who called sudo. Root's containers run as the owner of the working folder, or as the images' user
    if that is root as well: training never needs root.
    """
    uid, gid = os.getuid(), os.getgid()
    if uid == 0 and os.environ.get("SUDO_UID", "").isdigit():
        uid, gid = int(os.environ["SUDO_UID"]), int(os.environ.get("SUDO_GID", os.environ["SUDO_UID"]))
    if uid == 0:
        about = workdir.stat()
        uid, gid = about.st_uid, about.st_gid
    return IMAGE_USER if uid == 0 else (uid, gid)


def can_write(folder: Path, user: tuple[int, int]) -> bool:
    """Whether the mode of a folder lets a user make files in it."""
    return _allows(folder, user, 0o2)


def can_read(folder: Path, user: tuple[int, int]) -> bool:
    """Whether the mode of a folder lets a user read what is in it."""
    return _allows(folder, user, 0o5)


def _allows(folder: Path, user: tuple[int, int], bits: int) -> bool:
    about = folder.stat()
    shift = 6 if about.st_uid == user[0] else 3 if about.st_gid == user[1] else 0
    return about.st_mode >> shift & bits == bits
