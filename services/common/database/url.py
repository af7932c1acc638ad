"""Addresses of databases as settings have them."""

from urllib.parse import parse_qs, urlsplit

__all__ = ["checked_url"]


def checked_url(url: str, *, remedy: str) -> str:
    """Return the URL of a PostgreSQL database, which gets into logs.

    Parameters
    ----------
    remedy
        The setting that its password belongs into.

    Raises
    ------
    ValueError
        It is none, or has a password. What is wrong with it is not said by that part: it may be a secret.
    """
    parts = urlsplit(url)
    if parts.scheme != "postgresql" or not parts.path.strip("/"):
        raise ValueError("is no postgresql://USER@HOST[:PORT]/DATABASE")
    if parts.password is not None or "password" in parse_qs(parts.query):
        raise ValueError(f"has a password: that belongs into {remedy}")
    return url
