"""Credentials that take a program or a service to get, and connections through proxies: by the official client.

Nothing else of it is used. `kube_login` says when.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import urllib3

from stackctl.engines import kubeconfig
from stackctl.engines.kube_login import CONNECTIONS
from stackctl.errors import MissingHere, StackError

# Where kubernetes-validate is installed the client imports it, for what we do not use: that takes two seconds.
_validator = sys.modules.setdefault("kubernetes_validate", None)  # type: ignore[arg-type]
try:
    from kubernetes.client.configuration import Configuration
    from kubernetes.client.rest import RESTClientObject
    from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
finally:
    if _validator is None:
        del sys.modules["kubernetes_validate"]


class Login:
    """Credentials as they were read, and the connections that are opened with them.

    Raises:
        MissingHere: There is no kubeconfig, or its credentials cannot be had.
    """

    def __init__(self, context: str) -> None:
        self._configuration = _configuration(context)
        self._configuration.connection_pool_maxsize = CONNECTIONS
        self.host = str(self._configuration.host).rstrip("/")
        proxy = str(self._configuration.proxy or "")
        if proxy and "://" not in proxy:  # as Go's programs have it, kubectl among them
            self._configuration.proxy = f"http://{proxy}"
        address = urlsplit(str(self._configuration.proxy or ""))
        self.proxy = f"{address.scheme}://{address.netloc.rpartition('@')[2]}"
        if not self._configuration.verify_ssl:  # as the kubeconfig wants it
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        try:
            self.pool = RESTClientObject(self._configuration).pool_manager
        except (urllib3.exceptions.HTTPError, ImportError) as error:
            needs = "it needs the Python package pysocks" if isinstance(error, ImportError) else str(error)
            hint = "HTTPS_PROXY, or `proxy-url` in the kubeconfig, names it; NO_PROXY names what needs none"
            raise MissingHere(f"the proxy {self.proxy} cannot be used: {needs}", hint=hint) from None

    def token(self) -> str | None:
        """What goes into the header `Authorization`; an exec plugin is asked again when its token has expired."""
        return _token(self._configuration)


def _token(configuration: Any) -> str | None:
    found: str | None = configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
    return found


def _configuration(context: str) -> Any:
    found: list[str] = []
    configuration = Configuration()
    with _logged(found):
        try:
            paths = kubeconfig.filled(os.environ)
            if paths and not (context or kubeconfig.current(os.environ).name):
                hint = "`kubectl config use-context NAME` sets it, or name one with --context"
                raise MissingHere("the kubeconfig has no current context", hint=hint)
            if paths:
                path = os.pathsep.join(map(str, paths))
                load_kube_config(path, context=context or None, client_configuration=configuration)  # type: ignore[no-untyped-call]
            elif kubeconfig.SERVICE_ACCOUNT.is_dir():
                load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            else:
                raise MissingHere(
                    f"there is no kubeconfig: {kubeconfig.lacking(os.environ)}",
                    hint="get one from your cluster's provider, or set KUBECONFIG; `stackctl run` needs no cluster",
                )
        except StackError:
            raise
        except (ConfigException, OSError) as error:
            why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
            why = re.sub(r"/?\{.*\}", "", why, flags=re.DOTALL)  # it quotes the user's whole entry, secrets too
            raise MissingHere(f"the kubeconfig cannot be used: {why}", hint="`kubectl config view` shows it") from None
        except Exception as error:  # of an auth provider that is not there any more, or whose issuer does not answer
            why = f"{type(error).__name__}: {error}"
            raise MissingHere(f"the kubeconfig's credentials cannot be had: {why}", hint="log in again") from None
    if found:  # the client only logs that an exec plugin failed, and would go on as nobody
        absent = any(text in found[-1] for text in ("No such file", "Permission denied"))
        hint = "install the program that the kubeconfig's user names, so that PATH has it" if absent else "log in again"
        raise MissingHere(f"the kubeconfig's credentials cannot be had: {found[-1]}", hint=hint)
    gives = [key for key in ("exec", "auth-provider") if kubeconfig.user_of(os.environ, context).get(key)]
    if gives and not (_token(configuration) or configuration.cert_file):
        said = f"the kubeconfig's credentials cannot be had: `{gives[0]}` of its user gave none"  # we would be nobody
        raise MissingHere(said, hint="log in again; `kubectl config view` shows what it lacks")
    return configuration


@contextmanager
def _logged(found: list[str]) -> Iterator[None]:
    """Within the block, take errors that are logged, instead of printing them."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    handler, root = Handler(logging.ERROR), logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
