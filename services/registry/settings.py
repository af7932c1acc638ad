"""Settings of access to registries, read from `REGISTRY_*` environment variables by the services that pull."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, ByteSize, DirectoryPath, Field, FilePath
from pydantic_settings import SettingsConfigDict

from services.common.errors import InvalidValueError
from services.common.settings import CommaSeparated, Settings
from services.registry.credential_files import CredentialFiles
from services.registry.credentials import DockerCredentials, FirstOf
from services.registry.mirrors import Mirror
from services.registry.options import RegistryOptions
from services.registry.reference import registry_of

__all__ = ["RegistrySettings"]

_MIRROR: Final = re.compile(r"([^=/]+)=([^=/]+)((?:/[^=]+)?)")


def _registry(text: str) -> str:
    return registry_of(text)


def _mirror(text: str) -> str:
    """Check the form `REGISTRY=MIRROR[/PATH]`, and bring the registry to the name that its API has."""
    match = _MIRROR.fullmatch(text)
    if match is None:
        raise InvalidValueError(f"a mirror is written REGISTRY=MIRROR[/PATH], not {text[:200]!r}")
    registry, mirror = registry_of(match[1]), Mirror.parse(match[2] + match[3])
    if registry == mirror.authority:
        raise InvalidValueError(f"a registry is no mirror of itself: {text[:200]!r}")
    return text


class RegistrySettings(Settings):
    """How registries are spoken to, and who the user is there."""

    model_config = SettingsConfigDict(env_prefix="REGISTRY_")

    plain_http: CommaSeparated[Annotated[str, AfterValidator(_registry)]] = ()
    """Registries that have no TLS, as `HOST[:PORT]`."""
    ca_file: FilePath | None = None
    """File of certificates, as PEM, that are trusted besides the system's own."""
    credentials: DirectoryPath | None = None
    """Directory of credentials: `HOST[:PORT]/username` and `HOST[:PORT]/password`, or there `token` (a bearer token) or
    `identity-token` (an OAuth2 refresh token). `HOST[:PORT]/PREFIX/username` and so on are for the repositories below a
    prefix; the longest one counts. A port may be written `HOST_PORT`. What is here comes before Docker's
    configuration."""
    docker_config: FilePath | None = None
    """Docker's `config.json`, its helpers included; by default `$DOCKER_CONFIG/config.json` or
    `~/.docker/config.json`, if there is one."""
    mirrors: CommaSeparated[Annotated[str, AfterValidator(_mirror)]] = ()
    """Mirrors that images are pulled from, as `REGISTRY=MIRROR[:PORT][/PATH]`. What a mirror fails to give comes from
    the registry itself; what is pushed, and the registry's credentials, go to the registry alone."""
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 8
    """Most requests to one registry at a time."""
    connect_timeout: Annotated[float, Field(gt=0, le=600)] = 15
    """Longest wait for a connection, in seconds."""
    read_timeout: Annotated[float, Field(gt=0, le=3600)] = 60
    """Longest silence of a registry, in seconds."""
    retry_seconds: Annotated[float, Field(gt=0, le=3600)] = 120
    """How long a request that meets a transient failure is repeated, in seconds, and the longest pause that a registry
    may ask for within it; what takes longer is a failure that is tried again later."""
    minimum_rate: Annotated[ByteSize, Field(ge=1)] = ByteSize(48 << 10)
    """Slowest transfer that is put up with, in bytes per second, beyond the first five minutes."""

    def options(self) -> RegistryOptions:
        """Return what a client takes."""
        docker = (
            DockerCredentials.of_environment()
            if self.docker_config is None
            else DockerCredentials(path=self.docker_config, required=True)
        )
        files = () if self.credentials is None else (CredentialFiles(directory=self.credentials),)
        split = [mirror.partition("=") for mirror in self.mirrors]
        return RegistryOptions(
            insecure_registries=frozenset(self.plain_http),
            ca_file=self.ca_file,
            credentials=FirstOf((*files, docker)),
            mirrors={registry_of(registry): Mirror.parse(mirror) for registry, _, mirror in split},
            concurrency=self.concurrency,
            connect_timeout=self.connect_timeout,
            read_timeout=self.read_timeout,
            longest_wait=self.retry_seconds,
            slowest=self.minimum_rate,
        )
