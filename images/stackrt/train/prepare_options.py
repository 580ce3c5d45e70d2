"""Options of `prepare`. Standard library only: a mistyped option must cost a tenth of a second."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stackrt.train.command_line import Parser
from stackrt.train.errors import BadInputError


@dataclass(frozen=True)
class Options:
    """What to prepare, and where to."""

    data: tuple[Path, ...]
    to: Path
    tokenizer: str
    vocab_size: int
    field: str
    split: str
    shard_bytes: int
    verify: bool


def parse(argv: Sequence[str]) -> Options:
    """Turn a command line into checked options.

    Raises:
        BadInputError: A value that cannot work, named together with its option.
        SystemExit: A usage error (code 2) or `--help` (code 0), from argparse.
    """
    parser = Parser(
        prog="python -m stackrt.train.prepare",
        description="Tokenize text, JSONL or parquet into shards that trainers read memory-mapped. Several processes "
        "share the work, and write the same bytes as one; what was stopped goes on when it is started again.",
        allow_abbrev=False,
    )
    parser.add_argument("--data", type=Path, nargs="+", default=[], metavar="FILE", help="files, or folders of them; "
                        ".jsonl and .parquet are read as such, all else as text")  # fmt: skip
    parser.add_argument("--to", type=Path, metavar="DIR", default=Path(os.environ.get("STACK_OUT") or ".") / "shards",
                        help="folder for the shards (default $STACK_OUT/shards, else ./shards)")  # fmt: skip
    parser.add_argument("--tokenizer", default="byte", metavar="byte|bpe|PATH", help="one token a byte; byte-pair "
                        "encoding learned from the start of the data; or a Hugging Face tokenizer: tokenizer.json, or "
                        "the folder that has it (default byte)")  # fmt: skip
    parser.add_argument("--vocab-size", type=int, default=32768, metavar="N",
                        help="the most tokens that bpe learns (default 32768)")  # fmt: skip
    parser.add_argument("--field", default="text", metavar="NAME",
                        help="field of JSONL, or column of parquet, that has the text (default text)")  # fmt: skip
    parser.add_argument("--split", choices=("file", "line"), default="file",
                        help="whether a text file is one document, or each line is one (default file)")  # fmt: skip
    parser.add_argument("--shard-bytes", type=int, default=64 << 20, metavar="N",
                        help="bytes of input for one shard (default 64 MiB)")  # fmt: skip
    parser.add_argument("--verify", action="store_true", help="only read the shards in --to, and name the damaged")
    values = vars(parser.parse_args(argv))
    options = Options(**{**values, "data": tuple(values["data"])})
    for flag, holds, requirement in (
        ("--data", options.data or options.verify, "is missing: name the files to prepare"),
        ("--data", not (options.data and options.verify), "does not go with --verify, which reads --to only"),
        (f"--vocab-size {options.vocab_size}", 257 <= options.vocab_size <= 1 << 24, "must be from 257 to 16777216"),
        (f"--shard-bytes {options.shard_bytes}", options.shard_bytes >= 1024, "must be 1024 or more"),
    ):
        if not holds:
            raise BadInputError(f"{flag}: {requirement}")
    return options
