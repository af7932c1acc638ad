"""How PostgreSQL is connected to."""

from typing import Any, Final

from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

__all__ = ["connection_parameters", "shown_url"]

_CONNECT: Final = 10
"""Seconds that a connection may take to come about."""
_SILENCE: Final = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
"""When a connection on which nothing arrives any more counts as lost; in seconds, the last in milliseconds."""


def connection_parameters(url: str, password: SecretStr | None, *, program: str) -> dict[str, Any]:
    """Return what a connection is made with; parameters in the URL win.

    Parameters
    ----------
    program
        Who connects, as the server shows it.
    """
    secret = {} if password is None else {"password": password.get_secret_value()}
    return {
        "connect_timeout": _CONNECT,
        **_SILENCE,
        "application_name": program,
        **conninfo_to_dict(url),
        **secret,
    }


def shown_url(url: str) -> str:
    """Return a database's URL as errors show it: without parameters, among which a secret may be."""
    return url.partition("?")[0]
