"""What training left: the model of a finished run, of an export or of a compressed folder, opened for use.

    model, tokenizer, config = open_language_model(Path("run"))
    model, about = open_picture_model(Path("run"))

Each function imports its framework when it is called: an image has one of them.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackrt.finished.language import LanguageModel
    from stackrt.finished.pictures import PictureModel


def open_language_model(path: Path) -> "LanguageModel":
    """The model, its tokenizer and its configuration; ready to compute with, on the CPU.

    Args:
        path: Folder of a finished `gpt` or `lm` run, of a Hugging Face export, or of a model that `compress` wrote.

    Raises:
        BadInputError: It is none of these, has not finished, or is damaged; says what to do.
    """
    from stackrt.finished import language

    return language.open_model(path)


def open_picture_model(path: Path) -> "PictureModel":
    """A Keras model, and what is known of its pictures.

    Args:
        path: A `.keras` file, or the folder of a finished `keras` run.

    Raises:
        BadInputError: It is neither, has not finished, or is damaged; says what to do.
    """
    from stackrt.finished import pictures

    return pictures.open_model(path)
