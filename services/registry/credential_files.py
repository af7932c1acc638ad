"""Credentials in files: a directory for each registry and, below it, for prefixes of its repositories.

`quay.io/atlas/username` and `quay.io/atlas/password` are for what is below `quay.io/atlas/`, `quay.io/username` and
`quay.io/password` for everything else there: the longest prefix counts. These are the names that Kubernetes gives the
files of secrets of type `kubernetes.io/basic-auth`. In place of both there may be `token`, a bearer token that is sent
as it is, or `identity-token`, an OAuth2 refresh token.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services.common.threads import to_end
from services.registry.credentials import Credential
from services.registry.errors import CredentialsError
from services.registry.reference import HUB_HOST, HUB_NAMES, ImageReference

__all__ = ["CredentialFiles", "read_credential"]

_FIELDS: Final = {
    "username": "username",
    "password": "password",
    "token": "registry_token",
    "identity-token": "identity_token",
}
"""What each file holds, as a field of `Credential`."""

_WHOLE: Final = ({"username", "password"}, {"token"}, {"identity-token"})
"""Files that make a credential together."""

_LIMIT: Final = 64 << 10
"""Largest file, in bytes."""


class CredentialFiles:
    """Credentials that an operator or a cluster has put into files. They are read anew each time they are asked for.

    Parameters
    ----------
    directory
        Where they are.
    """

    def __init__(self, *, directory: Path) -> None:
        self._directory = directory

    async def find(self, reference: ImageReference) -> Credential | None:
        """Return what is there for an image's repository; None where nothing is.

        Raises
        ------
        CredentialsError
            A file cannot be read, or is no credential by itself.
        """
        return await to_end(asyncio.to_thread(self._find, reference))

    def _find(self, reference: ImageReference) -> Credential | None:
        for directory in self._directories(reference):
            credential = read_credential(directory)
            if credential is not None:
                return credential
        return None

    def _directories(self, reference: ImageReference) -> Iterator[Path]:
        """Yield where a repository's credentials may be, the longest prefix first."""
        host = reference.authority.lower()
        # The second form of a port is for places that cannot have a colon in a name, such as volumes of Kubernetes.
        names = sorted(HUB_NAMES) if host == HUB_HOST else dict.fromkeys((host, host.replace(":", "_")))
        components = reference.repository.split("/")
        for length in range(len(components), -1, -1):
            for name in names:
                yield self._directory.joinpath(name, *components[:length])


def read_credential(directory: Path) -> Credential | None:
    """Return the credential that the files in a directory make together; None where there are none (blocking).

    Raises
    ------
    CredentialsError
        A file cannot be read, or is no credential by itself.
    """
    fields = {name: text for name in _FIELDS if (text := _read_field(directory / name)) is not None}
    if not fields:
        return None
    if fields.keys() not in _WHOLE:
        raise CredentialsError(
            f"{directory} holds {' and '.join(sorted(fields))}: a credential is username and password, "
            "or token, or identity-token"
        )
    return Credential(source=str(directory), **{_FIELDS[name]: text for name, text in fields.items()})


def _read_field(path: Path) -> str | None:
    if not path.is_file():  # it may also be a directory, of repositories that have this name
        return None
    try:
        with path.open("rb") as file:
            content = file.read(_LIMIT + 1)
        text = content.decode().rstrip("\r\n")
    except OSError as error:
        raise CredentialsError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CredentialsError(f"{path} is not UTF-8 text") from None
    if not text.isprintable() or not 0 < len(content) <= _LIMIT or not text:
        raise CredentialsError(f"{path} has {len(content) or 'no'} bytes, or characters that no credential has")
    return text
