"""The launcher's expected failures and the exit codes they carry."""

OK = 0
PEERS = 75
"""Exit code (EX_TEMPFAIL of sysexits.h): peers that never came or have gone; another attempt may work."""
CONFIG = 78
"""Exit code (EX_CONFIG of sysexits.h): a configuration that can't work; another attempt would fail too."""


class LaunchError(Exception):
    """An expected failure; `str()` is the one line for the user."""

    exit_code = CONFIG


class ConfigError(LaunchError):
    """The environment or the command line asks for something that can't work."""

    exit_code = CONFIG


class PeersError(LaunchError):
    """Another node never came, or has gone."""

    exit_code = PEERS


class WireError(LaunchError):
    """The other end of a control connection does not speak the protocol."""

    exit_code = PEERS


class WrongTokenError(WireError):
    """The other end of a control connection does not hold this run's token."""

    exit_code = CONFIG
