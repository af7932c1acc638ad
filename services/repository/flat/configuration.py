"""What an image's configuration says about running it (OCI image specification 1.1, config.md).

It is written by whoever built the image, so that every value may be hostile: here they become a type that holds what a
process can be given, and nothing else.
"""

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.repository.errors import ImageRefusedError

__all__ = ["RunConfiguration", "read_configuration"]

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""What a shell takes for the name of a variable (POSIX.1-2017, XBD 3.235)."""
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfiguration:
    """How an image is to be run. No text in it has a NUL byte."""

    environment: Mapping[str, str | None]
    """Values by the names of variables, in order; None where the image wants one of the host's handed over. Every name
    is one that shells take; of a name that the image has twice it is the last value, as in a container."""
    left_out: Sequence[str]
    """Names of variables that no shell can set; in order."""
    entrypoint: Sequence[str]
    """The command that arguments are appended to."""
    command: Sequence[str]
    """The arguments where nobody gives any; without an entrypoint, the command itself."""
    labels: Mapping[str, str]
    created: int
    """When the image was made, in whole seconds since the epoch; 0 where it does not say, or says a time before."""


_Texts = Annotated[list[str] | None, Field(max_length=100_000)]  # Go writes null for an empty list


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", hide_input_in_errors=True)


class _Running(_Wire):
    env: Annotated[_Texts, Field(alias="Env")] = None
    entrypoint: Annotated[_Texts, Field(alias="Entrypoint")] = None
    command: Annotated[_Texts, Field(alias="Cmd")] = None
    labels: Annotated[dict[str, str] | None, Field(alias="Labels")] = None


class _Config(_Wire):
    created: str | None = None
    config: _Running | None = None


def read_configuration(content: bytes) -> RunConfiguration:
    """Read the configuration of an image.

    Parameters
    ----------
    content
        Its original bytes.

    Raises
    ------
    ImageRefusedError
        It is none, or its command cannot be run by any system.
    """
    try:
        document = _Config.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "the document"
        raise ImageRefusedError(f"the image's configuration: {place}: {first['msg']}: build the image anew") from None
    running = document.config or _Running()
    for name, arguments in (("Entrypoint", running.entrypoint), ("Cmd", running.command)):
        if any("\0" in argument for argument in arguments or ()):
            raise ImageRefusedError(
                f"the image's configuration: {name} has a NUL byte in it, which no command can have: "
                "build the image anew"
            )
    environment, left_out = _environment(running.env or ())
    return RunConfiguration(
        environment=environment,
        left_out=left_out,
        entrypoint=tuple(running.entrypoint or ()),
        command=tuple(running.command or ()),
        labels=running.labels or {},
        created=_seconds(document.created),
    )


def _environment(variables: Sequence[str]) -> tuple[Mapping[str, str | None], Sequence[str]]:
    found: dict[str, str | None] = {}
    left_out: dict[str, None] = {}
    for variable in variables:
        name, equals, value = variable.partition("=")
        if _IDENTIFIER.fullmatch(name) is None or "\0" in value:
            left_out[name] = None
        else:
            found.pop(name, None)
            found[name] = value if equals else None
    return found, tuple(left_out)


def _seconds(time: str | None) -> int:
    """Return a time of RFC 3339 in seconds since the epoch; 0 for what is none: an image runs without it."""
    try:
        moment = dt.datetime.fromisoformat(time or "")
    except ValueError:
        return 0
    if moment.tzinfo is None:
        return 0
    return max(0, int((moment - _EPOCH).total_seconds()))
