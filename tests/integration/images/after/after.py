"""Runs in the image: a small network of digits is trained, compressed and exported; then what cannot work is tried."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import keras

from stackrt.compress import pictures as compress
from stackrt.export import pictures as export
from stackrt.pictures import data as sets

OUT = Path("/out")


def train(out: Path) -> None:
    """What a run of keras leaves, as far as it is read."""
    data = sets.load("digits", Path("/none"))
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([
        keras.Input(data.shape),
        layers.Conv2D(32, 3, padding="same", activation="relu"),
        layers.MaxPool2D(),
        layers.Conv2D(64, 3, padding="same", activation="relu"),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
        layers.Dense(10),
    ])  # fmt: skip
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(data.floats(data.train.pictures), data.train.labels, epochs=20, batch_size=64, verbose=0)
    out.mkdir()
    model.save(out / "model.keras")
    about = {"data": "digits", "classes": list(data.classes), "shape": list(data.shape)}
    (out / "model.json").write_text(json.dumps(about))
    (out / "result.json").write_text(json.dumps({"workload": "keras", "checkpoint": None}))


def refused(main: Callable[[Sequence[str]], int], *argv: str) -> None:
    """Print the exit code; the error goes to standard error, which is standard output here."""
    print(f"exit code {main([*argv, '--out', str(OUT / 'bad')])}", flush=True)


run = OUT / "run"
train(run)
assert compress.main(["--model", str(run), "--out", str(OUT / "small"), "--repeats", "10",
                      "--method", "tflite", "fp16", "int8-dynamic", "int8"]) == 0  # fmt: skip
assert export.main(["--model", str(run), "--out", str(OUT / "exported"), "--to", "savedmodel", "tflite"]) == 0

sys.stderr = sys.stdout
print("refused", flush=True)
damaged, wide = OUT / "damaged.keras", OUT / "wide.keras"
damaged.write_bytes((run / "model.keras").read_bytes()[:-100])
keras.Sequential([keras.Input((16, 16, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]).save(wide)
gpt = OUT / "gpt"
gpt.mkdir()
(gpt / "result.json").write_text('{"workload": "gpt"}')
refused(compress.main, "--model", str(damaged))
refused(compress.main, "--model", str(wide), "--data", "digits")
refused(compress.main, "--model", str(wide))
refused(compress.main, "--model", str(run), "--data", str(OUT / "no-such-set"))
refused(compress.main, "--model", str(gpt))
refused(export.main, "--model", str(OUT / "nothing.keras"))
refused(export.main, "--model", str(run), "--tolerance", "1e-30", "--to", "tflite")
