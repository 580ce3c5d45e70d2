"""What can go wrong between us and an API server, each as one clear error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import urllib3

from stackctl.errors import StackError


class ApiError(StackError):
    """The API server refused a request, or does not answer (`status` 0)."""

    exit_code = 3

    def __init__(self, message: str, *, status: int = 0, reason: str = "", where: str = "", hint: str = "") -> None:
        super().__init__(message, where=where, hint=hint)
        self.status, self.reason = status, reason
        if status in (400, 422):
            self.exit_code = 2


@contextmanager
def where_allowed() -> Iterator[None]:
    """End the block quietly where a person may not do what it asks for: what it would have found is then not known."""
    try:
        yield
    except ApiError as error:
        if error.status != 403:
            raise


class BrokenOff(ApiError):
    """A stream ended before its end, perhaps within a line; whoever reads it asks for the rest again."""


class Silent(BrokenOff):
    """A stream is open, and nothing has come for SILENT_SECONDS."""


def unreachable(host: str, proxy: str, error: Exception) -> ApiError:
    """No answer, as urllib3 tells of it.

    Args:
        host: The API server's address.
        proxy: The address of the proxy before it.
        error: urllib3's.
    """
    behind = isinstance(error, urllib3.exceptions.ProxyError)
    if isinstance(error, urllib3.exceptions.ProxyError):
        error = error.original_error
    text = re.sub(r"^.*: |\[Errno -?\d+\] ", "", str(getattr(error, "reason", None) or error))
    refused = isinstance(error, urllib3.exceptions.NewConnectionError)  # of which urllib3 makes a time-out, too
    if isinstance(error, urllib3.exceptions.TimeoutError) and not refused:
        text = "no answer in time"
    if behind:
        hint = "it is that of HTTPS_PROXY, or of `proxy-url` in the kubeconfig; NO_PROXY names what needs none"
        return ApiError(f"the proxy {proxy} on the way to {host} does not let us through: {text}", hint=hint)
    if isinstance(error, urllib3.exceptions.SSLError):
        hint = "see `certificate-authority` and `tls-server-name` of the cluster in the kubeconfig, or get a new one"
        return ApiError(f"there is no safe connection to the cluster at {host}: {text}", hint=hint)
    hint = "is it the right one? `kubectl config get-contexts` lists them, and --context chooses"
    return ApiError(f"the cluster at {host} does not answer: {text}", hint=hint)


def refused(host: str, number: int, data: bytes) -> ApiError:
    """A refusal.

    Args:
        host: The API server's address.
        number: HTTP's status.
        data: What it says: a Status of the API, or whatever a proxy answers.
    """
    status = decoded(data)
    if status is None:
        status = {"message": " ".join(data[:200].decode(errors="replace").split())}
    reason = str(status.get("reason") or "")
    message = str(status.get("message") or "").strip() or f"HTTP {number}"
    if number == 401:
        hint = "log in again: the token or certificate in the kubeconfig has expired or is not of this cluster"
        return ApiError("the cluster does not accept your credentials", status=401, reason=reason, hint=hint)
    if number == 403 and "is forbidden: User" in message:
        hint = "ask for the role in k8s/base/rbac.yaml, or choose another --namespace"
        return ApiError(f"the cluster does not allow this: {message}", status=403, reason="RBAC", hint=hint)
    if message.startswith("admission webhook"):  # with status 400 if it does not choose one
        hint = "ask who runs the webhook: the rule is the cluster's own"
        return ApiError(f"the cluster does not admit this: {message}", status=403, reason="Webhook", hint=hint)
    if number >= 500 or number == 429:
        message = f"the cluster at {host} is in trouble: {message}"
    else:
        message = f"the cluster refuses this: {message}"
    return ApiError(message, status=number, reason=reason)


def no_object() -> ApiError:
    """An answer that is none of an API server's."""
    return ApiError("the cluster answered with what is no object", hint="is the address that of an API server?")


def decoded(data: bytes) -> dict[str, Any] | None:
    """An answer; None if it is no object."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
