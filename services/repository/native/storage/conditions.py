"""Conditions of requests: what an object must be for it to be replaced."""

from collections.abc import Mapping

__all__ = ["only_if"]


def only_if(version: str | None) -> Mapping[str, str]:
    """Return the parameter that makes a version a condition; None is that there is no object.

    The quotation marks of an ETag are left out, as AWS's own examples have it: Ceph 18 compares with what is between
    them, so that no object would ever be the same.
    """
    return {"IfNoneMatch": "*"} if version is None else {"IfMatch": version.strip('"')}
