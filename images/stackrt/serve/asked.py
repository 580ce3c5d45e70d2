"""Reading a request: JSON of the right shape, or one sentence that says what is wrong. Standard library only."""

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn


class RequestError(Exception):
    """A request that cannot be answered.

    Attributes:
        status: The HTTP status.
        param: The key that is wrong, if it is one.
        code: A word for programs.
        retry: Seconds after which it may be tried again; 0 for never.
    """

    def __init__(self, message: str, status: int = 400, param: str = "", code: str = "", retry: int = 0) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.retry = status, param, code, retry


def read(body: bytes) -> dict[str, Any]:
    """The JSON object of a body.

    Raises:
        RequestError: It is none.
    """
    try:
        found = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise RequestError("the request is not UTF-8") from None
    except RecursionError:
        raise RequestError("the request is nested too deeply") from None
    except ValueError as error:
        raise RequestError(f"the request is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise RequestError("the request must be a JSON object")
    return found


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")


class Fields:
    """The keys of a request, each with its check."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self._row = row

    def only(self, known: frozenset[str], refused: Mapping[str, Any]) -> None:
        """See that there is no key that this server would have to ignore.

        Args:
            known: Keys that are read, or make no difference to the answer.
            refused: Keys that are not supported, with the value that asks for nothing.
        """
        for key, value in self._row.items():
            if key in refused:
                nothing = refused[key]
                same = value == nothing and isinstance(value, bool) == isinstance(nothing, bool)  # 0 is not false
                if value is not None and not same:
                    raise RequestError(f"{key} is not supported by this server", param=key, code="unsupported")
            elif key not in known:
                raise RequestError(f"{key[:80]!r} is no key of this request", param=key[:80], code="unknown_parameter")

    def number(self, key: str, otherwise: float, low: float, high: float) -> float:
        """A number within bounds."""
        value = self._row.get(key)
        if value is None:
            return otherwise
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(_float(value)):
            raise RequestError(f"{key} must be a number", param=key)
        if not low <= value <= high:
            raise RequestError(f"{key} must be from {low:g} to {high:g}", param=key)
        return float(value)

    def whole(self, key: str, otherwise: int | None, low: int, high: int) -> int | None:
        """A whole number within bounds."""
        value = self._row.get(key)
        if value is None:
            return otherwise
        if isinstance(value, bool) or not isinstance(value, int):
            raise RequestError(f"{key} must be a whole number", param=key)
        if not low <= value <= high:
            raise RequestError(f"{key} must be from {low} to {high}", param=key)
        return value

    def flag(self, key: str) -> bool:
        """True or false; false where it is absent."""
        value = self._row.get(key)
        if value is not None and not isinstance(value, bool):
            raise RequestError(f"{key} must be true or false", param=key)
        return bool(value)

    def words(self, key: str, most: int, longest: int) -> list[str]:
        """A text, or a list of some; empty where it is absent."""
        value = self._row.get(key)
        found = [] if value is None else value if isinstance(value, list) else [value]
        if len(found) > most:
            raise RequestError(f"{key} takes {most} texts at most", param=key)
        for word in found:
            if not isinstance(word, str) or not word or len(word) > longest:
                raise RequestError(f"{key} must be a text of 1 to {longest} characters, or a list of them", param=key)
            text(word, key)
        return found


def text(value: str, key: str) -> str:
    """A text that is one: JSON can hold half of a character."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RequestError(f"{key} holds half of a character (a lone surrogate)", param=key) from None
    return value


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
