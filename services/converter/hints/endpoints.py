"""Who may send hints: a file of endpoints, read again when it changes.

endpoints:
- name: site-registry                  # POST /v1/hints/site-registry
kind: distribution
registry: registry.example.org:5000  # as wish lists write it
secret_file: /run/secrets/site-registry
names: ["registry.example.org:5000/physics/*"]
- name: atlas                          # POST /v1/sync with this token
kind: sync
secret_file: /run/secrets/atlas-sync
names: ["gitlab-registry.example.org/atlas/*"]
"""

import asyncio
import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Self

import structlog
import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError, model_validator

from services.common.errors import InvalidValueError
from services.common.settings import read_secret
from services.converter.hints.dialects.parse import Kind
from services.converter.hints.errors import EndpointsError
from services.converter.hints.model import name_of, read_hint
from services.converter.model import Hint

__all__ = ["Endpoint", "Endpoints"]

_log = structlog.get_logger(__name__)

_FILE_LIMIT: Final = 1 << 20
"""Largest file, in bytes."""
_SHORTEST_SECRET: Final = 16
_SHOWN_PROBLEMS: Final = 10

_OWN_REGISTRY: Final[Mapping[Kind, str]] = {
    Kind.QUAY: "quay.io",
    Kind.DOCKER_HUB: "docker.io",
    Kind.GITHUB: "ghcr.io",
}
"""The registry where none is given."""

_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$")]
_Glob = Annotated[str, StringConstraints(min_length=1, max_length=512)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A sender of hints."""

    name: str
    """Its name, a part of the URL that hints are sent to."""
    kind: Kind
    registry: str
    """The registry that its hints are about; empty for `Kind.SYNC`, which names it."""
    secret: SecretStr
    names: tuple[str, ...]
    """Globs, of which one matches every name that it may give hints about."""

    def covers(self, hint: Hint) -> bool:
        """Whether it may give this hint."""
        name = name_of(hint)
        return any(fnmatch.fnmatchcase(name, glob) for glob in self.names)


class _EndpointWire(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: _Name
    kind: Kind
    registry: str | None = None
    secret: SecretStr | None = None
    secret_file: Path | None = None
    names: Annotated[list[_Glob], Field(min_length=1, max_length=1000)] = Field(default=["*"])

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.secret is None) == (self.secret_file is None):
            raise ValueError("give either secret or secret_file")
        if self.kind is Kind.SYNC:
            if self.registry is not None:
                raise ValueError("a sync endpoint has no registry: its requests name it, limited by names")
        elif self.registry is None and self.kind not in _OWN_REGISTRY:
            raise ValueError(f"an endpoint of kind {self.kind} needs the registry, written as in wish lists")
        return self

    def checked(self, directory: Path) -> Endpoint:
        """Read the secret, which is relative to a directory, and return the endpoint."""
        secret = self.secret
        if self.secret_file is not None:
            secret = read_secret(f"secret_file of {self.name}", directory / self.secret_file)
        if secret is None or len(secret.get_secret_value()) < _SHORTEST_SECRET:
            raise InvalidValueError(f"the secret of {self.name} has fewer than {_SHORTEST_SECRET} characters")
        registry = self.registry or _OWN_REGISTRY.get(self.kind, "")
        if self.kind is not Kind.SYNC:
            try:
                read_hint(registry, "any", None)
            except InvalidValueError:
                raise InvalidValueError(f"the registry of {self.name} is no HOST[:PORT]: {registry[:200]!r}") from None
        return Endpoint(name=self.name, kind=self.kind, registry=registry, secret=secret, names=tuple(self.names))


class _FileWire(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    endpoints: Annotated[list[_EndpointWire], Field(max_length=1000)]

    @model_validator(mode="after")
    def _one_of_a_name(self) -> Self:
        names = [endpoint.name for endpoint in self.endpoints]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two endpoints have the name {', '.join(sorted(twice))}")
        return self


def _load(path: Path, stamps: dict[Path, object]) -> Mapping[str, Endpoint]:
    """Read the file and the secrets that it names, and note of each how it was before; errors show no secret."""
    stamps[path] = _stamp(path)
    try:
        wires = _FileWire.model_validate(_document(path)).endpoints
        for wire in wires:
            if wire.secret_file is not None:
                stamps[path.parent / wire.secret_file] = _stamp(path.parent / wire.secret_file)
        return {wire.name: wire.checked(path.parent) for wire in wires}
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, detail['loc'])) or 'the file'}: {detail['msg'].removeprefix('Value error, ')}"
            for detail in error.errors(include_url=False, include_input=False, include_context=False)[:_SHOWN_PROBLEMS]
        )
        raise EndpointsError(f"{path}: {problems}") from None
    except InvalidValueError as error:
        raise EndpointsError(f"{path}: {error}") from None


def _document(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_LIMIT + 1)
    except OSError as error:
        raise EndpointsError(f"the file of endpoints {path} cannot be read: {error.strerror}") from None
    if len(content) > _FILE_LIMIT:
        raise EndpointsError(f"the file of endpoints {path} has more than {_FILE_LIMIT} bytes, which is a mistake")
    try:
        return yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # PyYAML's own text shows the lines around the place, which may hold a secret.
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
        raise EndpointsError(f"{path} is not YAML{place}") from None


class Endpoints:
    """The endpoints as the file has them now.

    A version with a mistake is reported and not used: the last good one holds on until the mistake is corrected.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = asyncio.Lock()
        self._endpoints: Mapping[str, Endpoint] | None = None
        self._stamps: dict[Path, object] = {}
        self.problem: str | None = None
        """What is wrong with the present version of the file."""

    async def current(self) -> Mapping[str, Endpoint]:
        """Return the endpoints by their names; what has changed is read again.

        Raises
        ------
        EndpointsError
            Something is wrong with the file, and there has been no good version before.
        """
        async with self._lock:
            if not self._stamps or any(_stamp(path) != stamp for path, stamp in self._stamps.items()):
                await self._reload()
            if self._endpoints is None:
                raise EndpointsError(str(self.problem))
            return self._endpoints

    async def _reload(self) -> None:
        stamps: dict[Path, object] = {}
        try:
            self._endpoints = await asyncio.to_thread(_load, self._path, stamps)
        except EndpointsError as error:
            self.problem = str(error)
            _log.error("the endpoints cannot be used; those read before hold on", reason=self.problem)
        else:
            self.problem = None
            _log.info("endpoints read", path=str(self._path), endpoints=sorted(self._endpoints))
        self._stamps = stamps


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
