"""What trainers of pictures have to train: the weights of one plain process, computed in their image."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.images import in_image

IMAGES = Path(__file__).parents[1] / "integration" / "images"
STEPS = ("--steps", "30", "--log-every", "10")
"""Of a training that is compared."""
SCRIPTS = {"cnn": "serial_tf.py", "horovod-torch": "serial_torch.py", "horovod-tf": "serial_tf.py"}
COMPARE = """
import numpy as np
found, wanted = np.load("/out/weights.npz"), np.load("/out/serial.npz")
assert sorted(found) == sorted(wanted) and len(found.files) == 6
print(max(float(abs(found[name] - wanted[name]).max()) for name in found))
"""

KERAS_STEPS = ("--steps", "30", "--schedule", "constant", "--lr", "0.01")
"""The same for `keras`."""


def apart(image: str, out: Path, workload: str) -> float:
    """The largest difference of a training's weights from those of one plain process."""
    train = ("python", f"/workspace/{SCRIPTS[workload]}", *STEPS)
    in_image(image, out, *train, scripts=IMAGES / "serial", timeout=600)
    return float(in_image(image, out, "python", "-c", COMPARE))


def keras_apart(image: str, out: Path) -> dict[str, float]:
    """The same for `keras`, as `weights`; and of each saved form, by its name, the difference of its scores."""
    words = ("python", "/workspace/serial.py", "--out", "/out", *KERAS_STEPS)
    found: dict[str, float] = json.loads(in_image(image, out, *words, scripts=IMAGES / "keras", timeout=600))
    assert len(found) == 4, found
    return found
