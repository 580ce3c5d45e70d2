"""Tokenize your data once, for all runs. Read it top to bottom; the modules beside it hold input, tokenizers and files.

    python -m stackrt.train.prepare --data my.jsonl --to shards                  one process
    stackctl run prepare --procs 8 -- --data my.jsonl --to shards                eight
    python -m stackrt.train.prepare --to shards --verify                         is all of it still whole?

The input is cut into parts, and each part gives one shard, whoever makes it: so the bytes are the same however many
processes there are, and after a kill only the shards that are missing are made. The processes meet in the folder alone,
and need neither torch nor a network.
"""

import os
import sys

from stackrt.train import command_line, prepare_options

if __name__ == "__main__":
    command_line.check_early(prepare_options.parse, sys.argv[1:])

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the ranks are what runs in parallel

import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stackrt.train import paths, report, shard_files, sources, vocabulary
from stackrt.train.errors import HEAD_START, BadInputError, PeersGoneError, TrainerError, ended
from stackrt.train.prepare_options import Options
from stackrt.train.shard_files import Damaged, Shard, Source, shard_name, write_json, write_text
from stackrt.train.vocabulary import Vocabulary

LEARN_BYTES = 16 << 20  # of text that a vocabulary is learned from
POLL, SAY_EVERY, PATIENCE = 0.03, 5.0, 600.0  # seconds
ADVICE = "free some space and start again: the shards that are there are whole, and are kept"


# ---------------------------------------------------------------------------------------------------------------------
# What is made


OTHER_FILES = "from other files, or files of another size"


class OtherInputError(BadInputError):
    """This rank sees other input than the folder was begun with."""


def recipe(o: Options, parts: Sequence[sources.Part]) -> dict[str, Any]:
    """All that the bytes depend on, but for the tokenizer: what a folder must agree in to be gone on with."""
    learning = {"vocab_size": o.vocab_size} if o.tokenizer == vocabulary.LEARNED else {}
    ends: list[tuple[Path, int]] = []
    for part in parts:  # a file may have been named twice
        if ends and part.begin and ends[-1][0] == part.path:
            ends.pop()
        ends.append((part.path, part.end))
    return {
        "format": shard_files.FORMAT,
        "options": {"field": o.field, "split": o.split, "shard_bytes": o.shard_bytes, **learning},
        "input": [[path.name, end] for path, end in ends],
    }


def agree(o: Options, parts: Sequence[sources.Part], *, first: bool) -> tuple[Vocabulary, dict[str, Any]]:
    """The tokenizer and the recipe, the same on all ranks: rank 0 writes both down, and the others read them.

    Raises:
        BadInputError: The folder is of another recipe, or cannot be written.
        PeersGoneError: Rank 0 has written none.
    """
    wanted = recipe(o, parts)
    chosen = None if o.tokenizer == vocabulary.LEARNED else vocabulary.given(o.tokenizer)
    text = b""
    if first:
        if not paths.is_there(o.to / shard_files.RECIPE):  # what an option has wrong leaves nothing behind
            sources.glance(parts, field=o.field, strict=chosen is None or chosen.strict)
            text = b"" if chosen else sources.head(parts, LEARN_BYTES, field=o.field)
        _make_folder(o.to)
    made = shard_files.read_json(o.to / shard_files.RECIPE) if first else _await_recipe(o.to / shard_files.RECIPE)
    if made is None:
        chosen = chosen or vocabulary.learned(text, o.vocab_size)
        made = wanted | {"tokenizer": chosen.describe()}
        if chosen.definition:
            write_text(o.to / shard_files.TOKENIZER, chosen.definition, ADVICE)
        write_json(o.to / shard_files.RECIPE, made, ADVICE)
    if differ := _difference(made, wanted, chosen):
        kind = OtherInputError if differ == OTHER_FILES else BadInputError
        raise kind(f"--to {o.to}: was made {differ}; go on with the same input and options, or choose another folder")
    return chosen or vocabulary.kept(o.to, made["tokenizer"]), made


def make(o: Options, part: sources.Part, tokenizer: Vocabulary, made: dict[str, Any]) -> Shard:
    """A part's shard; one that is there already is kept.

    Raises:
        BadInputError: The input is no text, or not what the shard that is there was made from.
        TrainerError: The disk is full or failing.
    """
    path = o.to / shard_name(part.number)
    loaded = sources.load(part, field=o.field, split=o.split, strict=tokenizer.strict)
    source = Source(part.path.name, part.begin, part.end, loaded.sha256)
    if there := _kept(path, shard_files.sha256_of(made)):
        if there.source != source:
            raise BadInputError(
                f"{path}: was made when {part.path} had another content; choose another --to, or delete {o.to}"
            )
        return there
    last = len(loaded.documents) - 1
    tokens = (
        tokenizer.encode(document, ends=loaded.ends or number < last)
        for number, document in enumerate(loaded.documents)
    )
    about = (tokenizer.sha256, shard_files.sha256_of(made), source)
    return shard_files.write_shard(o.to, part.number, tokens, shard_files.token_type(tokenizer.size), about, ADVICE)


def finish(o: Options, parts: Sequence[sources.Part], made: dict[str, Any], shards: Sequence[Shard]) -> dict[str, Any]:
    """Write the index.

    Raises:
        BadInputError: There is no token in any shard.
    """
    if not any(shard.tokens for shard in shards):
        names = dict.fromkeys(str(part.path) for part in parts)
        raise BadInputError(f"--data {' '.join(names)}: no text in it; give a file with some")
    for left_over in shard_files.left_over(o.to):
        left_over.unlink(missing_ok=True)
    return shard_files.write_index(o.to, shards, made["tokenizer"], ADVICE)


# ---------------------------------------------------------------------------------------------------------------------
# The run


def say(line: str) -> None:
    """Print at once; logs are read while they grow."""
    print(line, flush=True)


def run(o: Options, rank: int, world_size: int) -> int:
    """Prepare, and return the exit code."""
    began = time.monotonic()
    parts = sources.plan(sources.find(o.data), o.shard_bytes)
    try:
        tokenizer, made = agree(o, parts, first=rank == 0)
    except OtherInputError as error:
        if rank == 0:
            raise
        time.sleep(2 * HEAD_START)  # what rank 0 finds as well it says, and ends all others
        print(f"error: rank {rank}: {error}; does it see what rank 0 sees, and does no file grow?", file=sys.stderr)
        return error.exit_code
    progress = Progress(o.to, parts, shard_files.sha256_of(made))
    if rank == 0:
        files, size = len({part.path for part in parts}), sum(part.bytes for part in parts)
        kept = f", {len(progress.shards):,} of them are there" if progress.shards else ""
        say(f"data    {files:,} files, {size / 1e6:,.1f} MB; {len(parts):,} shards{kept}")
        if packed := sources.packed_inside(o.data):
            say(f"note    {len(packed):,} packed files are not read, the first is {packed[0]}; unpack what is wanted")
        name, kind = made["tokenizer"]["name"], shard_files.token_type(tokenizer.size)
        say(f"tokens  {name}, {tokenizer.size:,} kinds, in {kind[-1]} bytes each".replace("1 bytes", "1 byte"))
        say(f"ranks   {world_size}")
    for part in sources.share(parts, rank, world_size):
        try:
            make(o, part, tokenizer, made)
        except TrainerError as error:
            # Each rank has another part of the input, so this one speaks for itself.
            print(f"error: {error}", file=sys.stderr, flush=True)
            return error.exit_code
        if rank == 0:
            progress.look(say)
    if rank:
        return 0
    while len(progress.shards) < len(parts):
        time.sleep(POLL)
        progress.look(say)
    index = finish(o, parts, made, [progress.shards[part.number] for part in parts])
    seconds = time.monotonic() - began
    if out := os.environ.get("STACK_OUT"):
        report.write_result(Path(out) / "result.json", {
            "workload": "prepare", "folder": str(o.to), "shards": len(parts), "tokens": index["tokens"],
            "documents": index["documents"], "tokenizer": index["tokenizer"], "sha256": index["sha256"],
            "world_size": world_size, "seconds": round(seconds, 3),
        })  # fmt: skip
    say(f"done    {index['tokens']:,} tokens, {index['documents']:,} documents in {seconds:.1f} s")
    say(f"files   {o.to}; train on it with --data {o.to}")
    return 0


class Progress:
    """Which shards are there, whoever made them.

    Args:
        folder: The shards' folder.
        parts: What they are made of.
        recipe: SHA-256 of the recipe they must be of.
    """

    def __init__(self, folder: Path, parts: Sequence[sources.Part], recipe: str) -> None:
        self.shards: dict[int, Shard] = {}
        self._folder, self._recipe = folder, recipe
        self._bytes = {part.number: part.bytes for part in parts}
        self._began = self._said = time.monotonic()
        self._before = self._look()

    def look(self, tell: Any) -> None:
        """See what is new, and tell it now and then."""
        done, total, now = self._look(), sum(self._bytes.values()), time.monotonic()
        if now - self._said < SAY_EVERY:
            return
        self._said = now
        speed = (done - self._before) / (now - self._began)
        eta = f"  eta {(total - done) / speed:,.0f} s" if speed else ""
        tell(f"shards  {len(self.shards)}/{len(self._bytes)}  {done / 1e6:,.1f} of {total / 1e6:,.1f} MB  "
             f"{speed / 1e6:.1f} MB/s{eta}")  # fmt: skip

    def _look(self) -> int:
        """Bytes of input whose shards are there."""
        with os.scandir(self._folder) as entries:
            names = {entry.name for entry in entries}
        for number in self._bytes:
            name = shard_name(number)
            if number not in self.shards and name in names and (shard := _kept(self._folder / name, self._recipe)):
                self.shards[number] = shard
        return sum(self._bytes[number] for number in self.shards)


def verify(o: Options) -> int:
    """Read all shards, and name those that are missing, short or damaged."""
    index, shards = shard_files.read_index(o.to)
    vocabulary.kept(o.to, index["tokenizer"])

    def wrong(shard: Shard) -> str:
        try:
            shard_files.check_body(o.to / shard.name, shard)
        except Damaged as damage:
            return str(damage)
        except OSError as error:
            return error.strerror or str(error)
        return ""

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing and reading do not hold the interpreter's lock
        answers = list(pool.map(wrong, shards))
    damaged = [(shard, answer) for shard, answer in zip(shards, answers, strict=True) if answer]
    for shard, answer in damaged:
        say(f"damaged {o.to / shard.name}: {answer}")
    if damaged:
        raise TrainerError(
            f"{len(damaged):,} of {len(shards):,} shards in {o.to} are damaged, the first is {damaged[0][0].name}; "
            "delete them, and run the same `prepare` again: it makes only what is missing"
        )
    say(f"whole   {len(shards):,} shards, {index['tokens']:,} tokens, {index['tokenizer']['name']}")
    return 0


def _kept(path: Path, made: str) -> Shard | None:
    """A whole shard of this recipe."""
    try:
        shard = shard_files.read_header(path)
    except (Damaged, OSError):
        return None
    return shard if shard.recipe == made else None


def _make_folder(folder: Path) -> None:
    try:
        paths.make_writable(folder)
        shutil.disk_usage(folder)
    except OSError as error:
        raise BadInputError(f"--to {folder}: not writable: {error.strerror}; choose another folder") from None


def _await_recipe(path: Path) -> dict[str, Any]:
    """What rank 0 writes down; where it fails, the launcher ends this rank."""
    deadline = time.monotonic() + PATIENCE
    while (found := shard_files.read_json(path)) is None:
        if time.monotonic() > deadline:
            raise PeersGoneError(f"--to {path.parent}: rank 0 has written no {path.name}; all ranks need one folder")
        time.sleep(POLL)
    return found


def _difference(made: dict[str, Any], wanted: dict[str, Any], chosen: Vocabulary | None) -> str:
    """How a folder's recipe differs; empty where it does not."""
    options, asked = made.get("options", {}), wanted["options"]
    for name in sorted({*options, *asked}):
        if options.get(name) != asked.get(name):
            flag = "--" + name.replace("_", "-")
            return f"with {flag} {options.get(name)}, not {asked.get(name)}"
    described = made.get("tokenizer", {})
    learned = described.get("kind") == vocabulary.LEARNED
    if described.get("sha256") != chosen.sha256 if chosen else not learned:
        is_now = chosen.describe()["name"] if chosen else vocabulary.LEARNED
        return f"with another tokenizer: {described.get('name')}, not {is_now}"
    if made.get("input") != wanted["input"]:
        return OTHER_FILES
    return "" if made.get("format") == wanted["format"] else f"in format {made.get('format')}"


def _place() -> tuple[int, int]:
    """This process's rank, and how many there are, as a launcher says."""
    found = [os.environ.get("RANK") or "0", os.environ.get("WORLD_SIZE") or "1"]
    if not (all(map(str.isdecimal, found)) and int(found[0]) < int(found[1])):
        raise BadInputError(f"RANK={found[0]} WORLD_SIZE={found[1]}: must be a rank, from 0, below a number of ranks")
    return int(found[0]), int(found[1])


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; expected failures become one line and an exit code."""

    def prepared() -> int:
        rank, world_size = _place()
        o = prepare_options.parse(sys.argv[1:] if argv is None else argv)
        try:
            if o.verify:
                return verify(o) if rank == 0 else 0
            return run(o, rank, world_size)
        except KeyboardInterrupt:
            if rank == 0:
                say("stopped; the shards that are there are whole, and the same command goes on")
            raise

    return ended(prepared)


if __name__ == "__main__":
    sys.exit(main())
