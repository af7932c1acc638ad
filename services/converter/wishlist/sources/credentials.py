"""Who the user is to web servers of wish lists: files as those for registries, by the host and the beginning of a path.

`gitlab.example.org/group/token` is for `https://gitlab.example.org/group/...`, and nobody else is shown it, also where
that server redirects elsewhere. Paths are as URLs have them, so that `%2F` is a part of a name.
"""

import asyncio
import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from yarl import URL

from services.common.threads import to_end
from services.converter.errors import SourceUnreachableError
from services.registry.credential_files import read_credential
from services.registry.errors import CredentialsError

__all__ = ["ListCredentials"]

_ANYBODY: Final[Mapping[str, str]] = {}


class ListCredentials:
    """Credentials in a directory, read anew each time; `token` is a bearer's, `username` and `password` make Basic.

    Parameters
    ----------
    directory
        Where they are; None where lists are open to anybody.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    async def headers(self, url: URL) -> Mapping[str, str]:
        """Return the headers that a server is shown.

        Raises
        ------
        SourceUnreachableError
            What is there for it is no credential.
        """
        if self._directory is None:
            return _ANYBODY
        try:
            return await to_end(asyncio.to_thread(_headers, self._directory, url))
        except CredentialsError as error:
            raise SourceUnreachableError(f"{url} is not asked: {error}") from None


def _headers(directory: Path, url: URL) -> Mapping[str, str]:
    for place in _places(directory, url):
        credential = read_credential(place)
        if credential is None:
            continue
        if credential.identity_token:
            raise CredentialsError(f"{place} holds an identity-token, which is for registries: give token")
        if credential.registry_token:
            return {"Authorization": f"Bearer {credential.registry_token}"}
        pair = f"{credential.username}:{credential.password}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
    return _ANYBODY


def _places(directory: Path, url: URL) -> Iterator[Path]:
    """Yield where credentials for a URL may be, the longest beginning first."""
    host = (url.host or "").lower()
    port = url.explicit_port
    # The second form of a port is for places that cannot have a colon in a name, such as volumes of Kubernetes.
    names = (host,) if port is None else (f"{host}:{port}", f"{host}_{port}")
    parts = url.raw_parts[1:]
    if "." in parts or ".." in parts:
        return
    for length in range(len(parts), -1, -1):
        for name in names:
            yield directory.joinpath(name, *parts[:length])
