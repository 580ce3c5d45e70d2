"""The launcher's expected failures and the exit codes they carry."""

from stackrt.contract import CONFIG, PEERS


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
