"""Words that several checks share."""

from collections.abc import Iterable

from stackrt.contract import FACTS

NO_CUDA = "this image holds no CUDA"
NO_IMAGE = f"there are no image facts ({FACTS}) here"
REBUILD = "build the image again, from its locks: stackctl build"


def some(words: Iterable[str], most: int = 5) -> str:
    """A list for a person: the first few words, and how many more there are."""
    every = sorted(words)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
