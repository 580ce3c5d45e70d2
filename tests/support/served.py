"""Models to serve, made in a moment: a GPT-2 that knows bytes, and a Keras model of pictures. And servers of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SHAPE = (8, 8, 1)


def language_model(folder: Path, *, width: int = 32, layers: int = 2, context: int = 64, spread: float = 0.4) -> Path:
    """A folder as an export leaves it. Wide initial weights, so that each prompt has an answer of its own."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers.models.gpt2.configuration_gpt2 import GPT2Config
    from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel

    torch.manual_seed(1)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    library = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = decoders.ByteLevel()
    config = GPT2Config(
        vocab_size=256, n_positions=context, n_layer=layers, n_head=2, n_embd=width, bos_token_id=None,
        eos_token_id=None, initializer_range=spread,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    model.save_pretrained(folder)
    library.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder


def trained_model(folder: Path) -> Path:
    """The export of a `gpt` that has learned for a moment which letters there are, see `has_learned`."""
    argv = [
        sys.executable,
        "-m",
        "stackrt.train.gpt",
        "--steps",
        "60",
        "--layers",
        "2",
        "--width",
        "64",
        "--heads",
        "2",
    ]
    short = ["--eval-tokens", "1024", "--sample-tokens", "0", "--lr", "0.01"]
    with tempfile.TemporaryDirectory() as out:
        words = [*argv, *short, "--out", out, "--export", str(folder)]
        env = {**os.environ, "PYTHONPATH": str(ROOT / "images")}
        subprocess.run(words, env=env, check=True, capture_output=True, timeout=240)
    return folder


def has_learned(api: Any, model: str) -> bool:
    """Whether a `trained_model` answers OpenAI's client, all at once and in a stream alike; random bytes are others.

    Args:
        api: An `openai.OpenAI`.
    """
    asked: dict[str, Any] = {"model": model, "prompt": "To be", "max_tokens": 24, "temperature": 0}
    whole: str = api.completions.create(**asked).choices[0].text
    streamed = "".join(piece.choices[0].text for piece in api.completions.create(**asked, stream=True))
    return whole == streamed and len(whole) >= 20 and all(letter.isascii() and letter != "\x00" for letter in whole)


def picture_model(file: Path) -> Path:
    """A model of 8 x 8 pictures and 10 classes, trained on digits for a moment."""
    code = f"""
        import keras
        from pathlib import Path
        from stackrt.pictures import data
        keras.utils.set_random_seed(1)
        digits = data.load("digits", Path("unused"))
        model = keras.Sequential([keras.Input({SHAPE}, name="picture"), keras.layers.Conv2D(4, 3, activation="relu"),
                                  keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")])
        model.compile("adam", "sparse_categorical_crossentropy")
        model.optimizer.learning_rate = 0.02
        model.fit(digits.floats(digits.train.pictures), digits.train.labels, 64, epochs=2, verbose=0)
        model.save({str(file)!r})
    """
    env = {**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": str(ROOT / "images")}
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=env, check=True, capture_output=True, timeout=120)
    return file


def recognized(ask: Callable[[Any], tuple[int, Any]], count: int = 40) -> float:
    """The share of digits which nobody has trained on that a served picture_model knows.

    Args:
        ask: Sends a body to the model's `:predict`, as clients of TensorFlow Serving do; the status and the answer.
    """
    from stackrt.pictures import data

    digits = data.load("digits", Path("unused"))
    pictures = digits.floats(digits.test.pictures[:count])
    status, answer = ask({"signature_name": "serving_default", "instances": pictures.tolist()})
    assert status == 200, answer
    guesses = [row.index(max(row)) for row in answer["predictions"]]
    return sum(map(int.__eq__, guesses, digits.test.labels[:count].tolist())) / count


class Served:
    """A server that runs: its address, its process, and what it has printed."""

    def __init__(self, process: subprocess.Popen[str], log: Path, address: str) -> None:
        self.process, self.log, self.address = process, log, address

    @property
    def kind(self) -> str:
        """`words` or `pictures`, as its model's file is named."""
        return str(self.ready["model"])

    @property
    def ready(self) -> dict[str, Any]:
        """What its first worker said once it was ready."""
        return next(row for row in self.rows if row["event"] == "ready")

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Its log."""
        return [json.loads(line) for line in self.log.read_text().split("\n")[:-1] if line.startswith("{")]

    def get(self, path: str) -> Any:
        """A JSON answer."""
        with urllib.request.urlopen(self.address + path, timeout=60) as answer:
            return json.load(answer)

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def served(model: Path, log: Path, *options: str) -> Iterator[Served]:
    """A server as a process, once it is ready."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "images"), "OMP_NUM_THREADS": "2"}
    argv = [sys.executable, "-P", "-m", "stackrt.serve", str(model), "--port", "0", "--drain", "0.5", *options]
    with log.open("w") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT, env=env, text=True)
    try:
        wanted = int(options[options.index("--workers") + 1]) if "--workers" in options else 1
        end = time.monotonic() + 120
        while True:
            ready = [row for line in log.read_text().splitlines() if '"ready"' in line for row in [json.loads(line)]]
            if len(ready) >= wanted:
                break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield Served(process, log, ready[0]["address"])
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
