"""Who the user is to a registry: Docker's `config.json` and its credential helpers.

Sources: docker/cli (`cli/config`), github.com/docker/docker-credential-helpers. A credential belongs to one registry
host and is looked up by it, so it cannot reach another.
"""

import asyncio
import base64
import binascii
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Protocol, Self

import aiofiles
import aiofiles.os
import structlog
from pydantic import Field, StringConstraints, ValidationError

from services.common.processes import end_group
from services.common.threads import to_end
from services.registry.errors import CredentialsError
from services.registry.reference import HUB_HOST, HUB_NAMES, ImageReference
from services.registry.wire import WireObject

__all__ = ["Credential", "CredentialStore", "DockerCredentials", "FirstOf"]

_HUB_KEY: Final = "https://index.docker.io/v1/"
"""What Docker files the credentials of Docker Hub under."""

_CONFIG_LIMIT: Final = 4 << 20
_ANSWER_LIMIT: Final = 1 << 20
"""Most that is read of a helper's answer, in bytes."""

_HELPER_TIMEOUT: Final = 30.0
"""How long a helper may take, in seconds; it may ask its user to unlock something."""

_NOT_FOUND: Final = b"credentials not found in native keychain"
"""How a helper says that it knows nothing (credentials.NewErrCredentialsNotFound)."""

_TOKEN_USER: Final = "<token>"  # noqa: S105 - a helper's user name that says that the secret is an identity token

_HelperName = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?$")]
"""The narrow form keeps a configuration from running a program of another name or place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What proves a user to one registry; secrets are kept out of its text form."""

    username: str = ""
    """Name of the user."""
    password: str = field(default="", repr=False)
    """The user's password, or an access token used as one."""
    identity_token: str = field(default="", repr=False)
    """OAuth2 refresh token, used instead of the password."""
    registry_token: str = field(default="", repr=False)
    """A bearer token that is sent to the registry as it is."""
    source: str = field(default="", compare=False)
    """Where it was found, for errors."""

    def __bool__(self) -> bool:
        return bool((self.username and self.password) or self.identity_token or self.registry_token)


class CredentialStore(Protocol):
    """Somebody who knows who the user is to registries."""

    async def find(self, reference: ImageReference) -> Credential | None:
        """Return what is known for an image's registry or repository; None where nothing is.

        Raises
        ------
        CredentialsError
            What should be known cannot be found out.
        """


@dataclass(frozen=True, slots=True)
class FirstOf:
    """Several stores, of which the first one that knows the user counts."""

    stores: Sequence[CredentialStore]

    async def find(self, reference: ImageReference) -> Credential | None:
        """Return what the first store knows that knows anything; raises as the stores."""
        for store in self.stores:
            credential = await store.find(reference)
            if credential is not None:
                return credential
        return None


class _Auth(WireObject):
    auth: str = Field(default="", repr=False)
    username: str = ""
    password: str = Field(default="", repr=False)
    identitytoken: str = Field(default="", repr=False)
    registrytoken: str = Field(default="", repr=False)

    def credential(self, where: str) -> Credential:
        username, password = self.username, self.password
        if self.auth:
            try:
                # Line breaks are what programs that make it of long tokens leave in it, and Docker reads over.
                packed = self.auth.replace("\r", "").replace("\n", "")
                username, colon, password = base64.b64decode(packed, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                colon = ""
            if not colon:
                raise CredentialsError(f"{where}: `auth` is not base64 of USER:PASSWORD: docker login again")
        return Credential(
            username=username,
            password=password.rstrip("\0"),
            identity_token=self.identitytoken,
            registry_token=self.registrytoken,
            source=where,
        )


class _Config(WireObject):
    auths: dict[str, _Auth | None] = Field(default_factory=dict)
    cred_helpers: dict[str, _HelperName] = Field(default_factory=dict, alias="credHelpers")
    creds_store: _HelperName | None = Field(default=None, alias="credsStore")


class _HelperAnswer(WireObject):
    username: str = Field(alias="Username")
    secret: str = Field(alias="Secret", repr=False)


class DockerCredentials:
    """The credentials that `docker login` has left; a file that has changed is read anew.

    Parameters
    ----------
    path
        Docker's `config.json`.
    required
        Whether it must exist.
    """

    def __init__(self, *, path: Path, required: bool = False) -> None:
        self._path = path
        self._required = required
        self._config: _Config = _Config()
        self._version: tuple[int, ...] | None = None
        self._log = structlog.get_logger(__name__)

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Use the file in `$DOCKER_CONFIG`, or else in `~/.docker`."""
        directory = environment.get("DOCKER_CONFIG") or str(
            Path(environment.get("HOME") or "~").expanduser() / ".docker"
        )
        return cls(path=Path(directory) / "config.json")

    async def find(self, reference: ImageReference) -> Credential | None:
        """Return what is known for an image's registry; None where nothing is.

        Raises
        ------
        CredentialsError
            The configuration cannot be read, or a helper failed.
        """
        host, config = reference.authority.lower(), await self._current()
        key = _HUB_KEY if host == HUB_HOST else host
        helper = next((name for at, name in config.cred_helpers.items() if _host_of(at) == host), config.creds_store)
        if helper:
            credential = await self._ask(helper, key)
            if credential:
                return credential
        found = {at: auth for at, auth in config.auths.items() if auth is not None and _host_of(at) == host}
        # Podman also writes keys with a path; Docker's own, without one, comes first.
        for _, auth in sorted(found.items(), key=lambda item: item[0] != key):
            if credential := auth.credential(f"{self._path}, auths of {host}"):
                return credential
        return None

    async def _current(self) -> _Config:
        try:
            status = await aiofiles.os.stat(self._path)
        except FileNotFoundError:
            if self._required:
                raise CredentialsError(f"{self._path} is not there: it should say who the user is") from None
            return _Config()
        except OSError as error:
            raise CredentialsError(f"{self._path} cannot be read: {error.strerror}") from None
        version = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
        if version != self._version:
            self._config = await to_end(_read_config(self._path))
            self._version = version
        return self._config

    async def _ask(self, helper: str, server: str) -> Credential | None:
        program = f"docker-credential-{helper}"
        what = f"{program}, which {self._path} names for {server}"
        async with _Question(server) as question:
            try:
                # Its messages may hold anything, so they go nowhere.
                process = await asyncio.create_subprocess_exec(
                    program,
                    "get",
                    stdin=question.server,
                    stdout=question.answer,
                    stderr=asyncio.subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError as error:
                raise CredentialsError(f"{what}, cannot be run: {error.strerror}: install it or take it out") from None
            try:
                async with asyncio.timeout(_HELPER_TIMEOUT):
                    answer = await question.read_answer()
                    if len(answer) <= _ANSWER_LIMIT:
                        await process.wait()
            except TimeoutError:
                raise CredentialsError(
                    f"{what}, gave no answer in {_HELPER_TIMEOUT:g} s: run it by hand to see why"
                ) from None
            finally:
                await end_group(process)
        if process.returncode != 0:
            if _NOT_FOUND in answer:
                return None
            raise CredentialsError(
                f"{what}, ended with status {process.returncode}: see why with: echo {server} | {program} get"
            )
        return _read_answer(answer, what)


class _Question:
    """A helper's standard input, with a server's name in it, and its standard output.

    These are pipes of our own: asyncio takes a program for running as long as one of its pipes is open or has not been
    read to its end, which somebody whom the program has started may prevent.
    """

    def __init__(self, server: str) -> None:
        self._name = server.encode()

    async def __aenter__(self) -> Self:
        self.server, writer = os.pipe()
        os.write(writer, self._name)  # a pipe holds more than a name may have
        os.close(writer)
        reader, self.answer = os.pipe()
        self._stream = asyncio.StreamReader()
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self._stream), os.fdopen(reader, "rb", buffering=0)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close_helpers_ends()
        self._transport.close()

    def _close_helpers_ends(self) -> None:
        for descriptor in (self.server, self.answer):
            if descriptor >= 0:
                os.close(descriptor)
        self.server = self.answer = -1

    async def read_answer(self) -> bytes:
        """Read to the end of the output, or more than the limit of it; the helper must have been started."""
        self._close_helpers_ends()
        answer = b""
        while (data := await self._stream.read(_ANSWER_LIMIT)) and len(answer) <= _ANSWER_LIMIT:
            answer += data
        return answer


def _read_answer(answer: bytes, what: str) -> Credential | None:
    try:
        parsed = _HelperAnswer.model_validate_json(answer)
    except ValidationError:
        raise CredentialsError(f"{what}, gave an answer of another form than helpers give: is it one?") from None
    if parsed.username == _TOKEN_USER:
        return Credential(identity_token=parsed.secret, source=what)
    return Credential(username=parsed.username, password=parsed.secret, source=what)


async def _read_config(path: Path) -> _Config:
    try:
        async with aiofiles.open(path, "rb") as file:
            content = await file.read(_CONFIG_LIMIT + 1)
    except OSError as error:
        raise CredentialsError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > _CONFIG_LIMIT:
        raise CredentialsError(f"{path} is larger than {_CONFIG_LIMIT} bytes: it is no Docker configuration")
    try:
        return _Config.model_validate_json(content) if content.strip() else _Config()
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, detail['loc'])) or 'document'}: {detail['msg']}"
            for detail in error.errors(include_url=False, include_input=False, include_context=False)[:3]
        )
        raise CredentialsError(f"{path} is not a Docker configuration: {problems}") from None


def _host_of(key: str) -> str:
    """Return the host and port that a key of the configuration is for; some are URLs, some have a path."""
    host = re.sub(r"^https?://", "", key).partition("/")[0].lower()
    return HUB_HOST if host in HUB_NAMES else host
