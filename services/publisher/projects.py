"""Projects: who may have which images published, from a file that is read again when it changes.

The file is YAML, a list of projects::

    - project: atlas
      token_file: /run/secrets/atlas-token      # or token: ...
      names: ["registry.example.org/atlas/*", "docker.io/atlas/*"]

Globs are compared with whole names such as `quay.io/ns/tool:v1`; `*` matches slashes as well.
"""

import asyncio
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Final

import structlog
import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError, model_validator

from services.common.settings import SettingsError, read_secret

__all__ = ["Project", "Projects"]

_log = structlog.get_logger(__name__)

_MIN_TOKEN: Final = 16
_LIMIT: Final = 1 << 20
"""Largest file, in bytes."""


class _Entry(BaseModel):
    """A project, as the file has it."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    project: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    token: SecretStr | None = None
    token_file: Path | None = None
    names: Annotated[list[Annotated[str, Field(min_length=1, max_length=512)]], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_token(self) -> "_Entry":
        if (self.token is None) == (self.token_file is None):
            raise ValueError("has either token or token_file")
        return self


_States = dict[Path, tuple[int, int, int]]

_ENTRIES: Final = TypeAdapter(list[_Entry])


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """One that may have images published."""

    name: str
    token: SecretStr
    globs: tuple[str, ...]

    def may_have(self, name: str) -> bool:
        """Whether an image of this name is the project's."""
        return any(fnmatchcase(name, glob) for glob in self.globs)


class Projects:
    """The projects of a file.

    Parameters
    ----------
    path
        The file; None if there are no projects.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._projects: tuple[Project, ...] = ()
        self._read: _States = {}
        self._turn = asyncio.Lock()
        self._problem: str | None = None

    async def load(self) -> None:
        """Read the file for the first time.

        Raises
        ------
        SettingsError
            It cannot be read, or is not of its form.
        """
        if self._path is not None:
            self._projects, self._read = await asyncio.to_thread(_load, self._path)

    def warning(self) -> str | None:
        """Say why the file as it is now does not count, and the one before does."""
        return self._problem

    async def of_token(self, shown: Sequence[str]) -> Project | None:
        """Return the project one of whose tokens is shown; None if none is.

        Parameters
        ----------
        shown
            What a request shows, any of which may be the token.
        """
        await self._refresh()
        found = None
        # Every one is compared, so that the time does not tell which came close.
        for project in self._projects:
            token = project.token.get_secret_value().encode()
            if sum(hmac.compare_digest(text.encode(errors="surrogateescape"), token) for text in shown):
                found = project
        return found

    async def _refresh(self) -> None:
        if self._path is None:
            return
        async with self._turn:
            try:
                if self._read == await asyncio.to_thread(lambda: {path: _state(path) for path in self._read}):
                    return
                self._projects, self._read = await asyncio.to_thread(_load, self._path)
            except SettingsError as error:
                if self._problem != str(error):
                    _log.error("the projects are those of before", reason=str(error))
                self._problem = str(error)
            else:
                self._problem = None
                _log.info("projects read", projects=[project.name for project in self._projects])


def _state(path: Path) -> tuple[int, int, int]:
    """Return what of a file changes with its content."""
    try:
        found = path.stat()
    except OSError as error:
        raise SettingsError(f"the projects' file {path} cannot be read: {error.strerror}") from None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _load(path: Path) -> tuple[tuple[Project, ...], _States]:
    """Read the file and those of its tokens; blocking."""
    states = {path: _state(path)}
    entries = _entries(path)
    files = [entry.token_file for entry in entries if entry.token_file is not None]
    states |= {file: _state(file) for file in files}
    projects = tuple(_project(path, entry) for entry in entries)
    if len({project.token.get_secret_value() for project in projects}) < len(projects):
        raise SettingsError(f"the projects {path}: two have the same token: give each its own")
    return projects, states


def _entries(path: Path) -> list[_Entry]:
    try:
        with path.open("rb") as file:
            content = file.read(_LIMIT + 1)
        if len(content) > _LIMIT:
            raise SettingsError(f"the projects {path} have more than {_LIMIT} bytes")
        return _ENTRIES.validate_python(yaml.safe_load(content) or [])
    except OSError as error:
        raise SettingsError(f"the projects {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        # Its own text may repeat parts of the file, where tokens are.
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        where = "" if mark is None else f" in line {mark.line + 1}"
        raise SettingsError(f"the projects {path} are no YAML{where}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise SettingsError(f"the projects {path} are not of their form: {place}: {first['msg']}") from None


def _project(path: Path, entry: _Entry) -> Project:
    token = entry.token
    if entry.token_file is not None:
        token = read_secret(f"the projects {path}: token_file of {entry.project}", entry.token_file)
    if token is None or len(token.get_secret_value()) < _MIN_TOKEN:
        raise SettingsError(f"the projects {path}: the token of {entry.project} has fewer than {_MIN_TOKEN} characters")
    return Project(name=entry.project, token=token, globs=tuple(entry.names))
