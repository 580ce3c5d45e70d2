"""The examples of a page, run section by section."""

from __future__ import annotations

import doctest
import re
from pathlib import Path


def failures(page: Path, sections: set[str]) -> str:
    """Run the examples of a page's sections, by their headings; returns what went wrong.

    Args:
        sections: The first is that before any heading, by the page's title.
    """
    found = dict(re.findall(r"^##? (.+)\n((?:(?!^##? ).*\n)*)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert sections <= found.keys(), found.keys()
    text = "".join(body for name, body in found.items() if name in sections)
    examples = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert examples.examples
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(examples, out=said.append)
    return "".join(said)
