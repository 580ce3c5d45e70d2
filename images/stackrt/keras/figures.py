"""What a network sees, as pictures for people: pictures with their labels, and which classes it takes for which."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stackrt.pictures.data import Pictures
from stackrt.train.report import writing

Array = npt.NDArray[Any]
SHOWN = 32
COLUMNS = 8
MOST_NUMBERED = 20
"""Classes up to which a matrix has its counts written in."""
PLAIN: dict[str, Any] = {"parse_math": False}
"""For names that people gave: `$5 or $10` is no formula, and matplotlib fails where it cannot read one."""
RIGHT, WRONG = "#1a7f37", "#c62828"


def predictions(path: Path, data: Pictures, found: Array) -> None:
    """Draw test pictures, those that were read wrongly first: at most half of what is shown."""
    guesses, labels = found.argmax(axis=1), data.test.labels
    wrong = np.flatnonzero(guesses != labels)[: SHOWN // 2]
    right = np.flatnonzero(guesses == labels)[: SHOWN - len(wrong)]
    chosen = np.concatenate([wrong, right])
    rows = [(data.floats(data.test.pictures[at]), data.classes[guesses[at]], data.classes[labels[at]]) for at in chosen]
    grid(path, rows)


def grid(path: Path, rows: Sequence[tuple[Array, str, str | None]]) -> None:
    """Draw pictures, each under what was predicted and what is true.

    Args:
        path: The PNG.
        rows: Pixels from 0 to 1, the predicted label, and the true one if it is known.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(1.5 * columns, 1.9 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (pixels, guess, label) in enumerate(rows, 1):
        axes = figure.add_subplot(lines, columns, place)
        grey = pixels.shape[-1] == 1
        axes.imshow(pixels[..., 0] if grey else pixels, cmap="gray" if grey else None, vmin=0, vmax=1)
        axes.set_axis_off()
        true = "" if label is None else f"\nis {label}"
        colour = "black" if label is None else RIGHT if guess == label else WRONG
        axes.set_title(f"{guess}{true}", fontsize=8, color=colour, **PLAIN)
    with writing(path):
        figure.savefig(path, dpi=110, format="png")


def counts(labels: Array, guesses: Array, classes: int) -> npt.NDArray[np.int64]:
    """How many pictures of a class (row) were taken for a class (column)."""
    found = np.zeros((classes, classes), np.int64)
    np.add.at(found, (labels, guesses), 1)
    return found


def confusion(path: Path, data: Pictures, guesses: Array) -> None:
    """Draw the confusion matrix of the test pictures, each row as parts of its class."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    many = len(data.classes)
    found = counts(data.test.labels, guesses, many)
    parts = found / np.maximum(1, found.sum(axis=1, keepdims=True))
    side = 2.5 + 0.5 * min(many, 40)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(parts, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.8, label="part of the class")
    places = range(many)
    axes.set_xticks(places, data.classes, rotation=45, ha="right", fontsize=8, **PLAIN)
    axes.set_yticks(places, data.classes, fontsize=8, **PLAIN)
    accuracy = float(np.trace(found) / max(1, found.sum()))
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(f"{data.name}: {accuracy:.1%} of {found.sum():,} are right", **PLAIN)
    if many <= MOST_NUMBERED:
        for row, column in np.ndindex(many, many):
            if found[row, column]:
                colour = "white" if parts[row, column] > 0.5 else "black"
                axes.text(column, row, str(found[row, column]), ha="center", va="center", fontsize=7, color=colour)
    with writing(path):
        figure.savefig(path, dpi=110, format="png")
