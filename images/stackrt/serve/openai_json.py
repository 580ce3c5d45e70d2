"""What OpenAI's clients send and get, as JSON. Standard library only."""

import json
from typing import Any

from stackrt.serve.asked import RequestError, text

ROLES = ("system", "developer", "user", "assistant", "tool")


def refuse(error: RequestError) -> dict[str, Any]:
    """An error as OpenAI's clients know it."""
    kind = "invalid_request_error" if error.status < 500 and error.status != 429 else "server_error"
    return {"error": {"message": str(error), "type": kind, "param": error.param or None, "code": error.code or None}}


def message(row: Any, index: int) -> dict[str, str]:
    """One message of a conversation.

    Raises:
        RequestError: It is none.
    """
    where = f"messages[{index}]"
    if not isinstance(row, dict) or row.get("role") not in ROLES:
        raise RequestError(f"{where} must have a role, one of {', '.join(ROLES)}", param="messages")
    content = row.get("content")
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content
        ]
        if not all(isinstance(part, str) for part in parts):
            raise RequestError(f"{where}.content may hold parts of type text only", param="messages")
        content = "".join(map(str, parts))
    if not isinstance(content, str):
        raise RequestError(f"{where}.content must be a text", param="messages")
    return {"role": row["role"], "content": text(content, f"{where}.content")}


def said(index: int, piece: str, why: str, *, chat: bool) -> dict[str, Any]:
    """A whole answer."""
    if chat:
        message = {"role": "assistant", "content": piece, "refusal": None}
        return {"index": index, "message": message, "finish_reason": why, "logprobs": None}
    return {"index": index, "text": piece, "finish_reason": why, "logprobs": None}


def delta(index: int, piece: str, why: str, *, chat: bool, opening: bool) -> dict[str, Any]:
    """A piece of an answer."""
    rest = {"index": index, "finish_reason": why or None, "logprobs": None}
    if not chat:
        return {**rest, "text": piece}
    delta: dict[str, Any] = {"role": "assistant"} if opening else {}
    return {**rest, "delta": {**delta, **({"content": piece} if piece or opening else {})}}


def event(row: dict[str, Any]) -> str:
    """An event of a stream."""
    return f"data: {json.dumps(row)}\n\n"
