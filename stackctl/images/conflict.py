"""Why no set of versions fits: the resolver's proof, told in one sentence. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import msgspec

_MARKER = re.compile(r"\{[^}]*\}")
_FOOTNOTE = re.compile(r" \(\d+\)")
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*")
_BECAUSE = re.compile(r"[Bb]ecause (.*?)(?:, we can conclude that|\.?$)")
_VERB = r"(?:depends? on|was not found|were not found|has no|have no|cannot)"
_AND = re.compile(
    rf",? and (?=(?:you require|we know from|there (?:is|are) no|only |the requested|all versions of|[^ ]+ {_VERB} ))"
)


Wants = dict[str, list[tuple[str, str]]]
"""Package -> who wants it (empty: the catalog), and the requirement."""


class Explanation(msgspec.Struct, frozen=True):
    """Why the requirements cannot be met.

    `sentence` says who wants what; `requirements` are those of the catalog that take part.
    """

    sentence: str
    requirements: tuple[str, ...]


def explain(output: str, asked: Iterable[str], python: str) -> Explanation | None:
    """Tell uv's proof in a sentence.

    Args:
        output: What uv printed: "Because A depends on B and you require C, we can conclude that …".
        asked: The catalog's requirements, `torch==2.13.0` each.
        python: The image's Python, such as `3.11`.

    Returns:
        None where the words have another form than known here: print them as they are.
    """
    rows = list(asked)
    wants: Wants = {}
    for fact in _facts(output):
        impossible = _impossible(fact, rows, python)
        if impossible:
            return Explanation(impossible, _involved(name_of(fact), wants, rows))
        for who, wanted in _wishes(fact):
            wish = (_row(who, rows) if who else "", wanted)
            if wish not in wants.setdefault(name_of(wanted), []):
                wants[name_of(wanted)].append(wish)
    for name, wishes in wants.items():
        if len(wishes) > 1:
            told = ", ".join(f"{_who(who, wants, rows)} wants {_range(wanted)}" for who, wanted in wishes)
            return Explanation(f"no version of {name} fits: {told}", _involved(name, wants, rows))
    return None


def name_of(requirement: str) -> str:
    """`nvidia-nccl-cu12` of `nvidia-nccl-cu12>=2.27.7,<3.0`; `torch` of `there is no version of torch==9`."""
    words = re.sub(r"^(?:there (?:is|are) no versions? of |all versions of |only )", "", requirement)
    match = _NAME.match(words)
    return match[0].lower().replace("_", "-") if match else words


def _facts(output: str) -> Iterator[str]:
    proof = " ".join(output.partition("\nhint:")[0].split())
    for because in _BECAUSE.finditer(_MARKER.sub("", _FOOTNOTE.sub("", proof))):
        yield from _AND.split(because[1])


def _wishes(fact: str) -> Iterator[tuple[str, str]]:
    """(who, requirement) pairs of a fact; nobody is the catalog."""
    if fact.startswith("you require "):
        for wanted in re.split(r",? and |, (?=[A-Za-z])", fact.removeprefix("you require ")):
            yield "", wanted
        return
    if fact.startswith("we know from"):
        return  # a conclusion of the lines above
    who, _, wanted = re.sub(" depend on ", " depends on ", fact).partition(" depends on ")
    if wanted:
        yield re.sub(r"^all versions of ", "", who), wanted.removeprefix("one of: ")


def _impossible(fact: str, rows: Sequence[str], python: str) -> str:
    """What no version could mend; empty for a fact of another kind."""
    absent = re.match(r"there (?:is|are) no versions? of (.+)", fact)
    if absent:
        return f"the package index has no {absent[1]}"
    if "was not found" in fact:
        return f"the package index has no package named {name_of(fact)}"
    if fact.endswith("has no usable wheels") or "has no wheels" in fact:
        return f"{_row(fact, rows)} has no wheel for the image's Python and platform"
    other = re.fullmatch(r"(\S+) depends on Python(\S+)", fact)
    if other:
        return f"{other[1]} wants Python {other[2]}, and the image's base has {python}"
    return ""


def _row(package: str, rows: Sequence[str]) -> str:
    """The catalog's own requirement of a package; the package as it is where the catalog does not name it."""
    return next((row for row in rows if name_of(row) == name_of(package)), package)


def _who(who: str, wants: Wants, rows: Sequence[str]) -> str:
    """Who has a wish; for a package that the catalog does not name, also who brought it in."""
    if not who:
        return "the catalog"
    if who in rows:
        return who
    through = next((asker for asker, _ in wants.get(name_of(who), []) if asker), "")
    return f"{who} (for {through})" if through else who


def _range(requirement: str) -> str:
    """`>=2.27.7,<3.0` of `nvidia-nccl-cu12>=2.27.7,<3.0`; `any version` where there is none."""
    parts = [re.sub(r"^[A-Za-z0-9._-]+(\[[^\]]*\])?", "", part) for part in requirement.split()]
    return " or ".join(filter(None, parts)) or "any version"


def _involved(name: str, wants: Wants, rows: Sequence[str]) -> tuple[str, ...]:
    """The catalog's requirements that a conflict over a package goes back to."""
    packages = [name]
    for package in packages:
        askers = (name_of(who) for who, _ in wants.get(package, []) if who)
        packages += [asker for asker in dict.fromkeys(askers) if asker not in packages]
    return tuple(row for row in rows if name_of(row) in packages)
