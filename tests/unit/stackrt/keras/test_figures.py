from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from stackrt.keras import figures
from stackrt.pictures.data import Pictures, Split


def test_names_are_drawn_as_they_are_whatever_is_in_them(tmp_path: Path) -> None:
    part = Split(np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 0, 1, 1]))
    classes = ("$5_ or $10^", "a {b} \\frac 100 % & #")
    data = Pictures("/data/$x_$", part, part, part, classes, 255, "0" * 64)
    figures.predictions(tmp_path / "p.png", data, np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]))
    figures.confusion(tmp_path / "c.png", data, np.array([0, 1, 0, 1]))
    for name in ("p.png", "c.png"):
        with Image.open(tmp_path / name) as drawn:
            assert drawn.size > (100, 100)
