"""Settings from environment variables.

One class per service, derived from `Settings` with a prefix of its own. Every field has a docstring, which is its
documentation: in `--help` and, held to the code by tests, in the README's tables.

- A secret is a field of type `SecretStr`; `<NAME>_FILE` names a file to read it from instead.
- A variable that has the prefix and is no setting is refused: a misspelt setting would be silently without effect.
- A variable that is empty counts as not set, as compose files write `NAME=${NAME:-}`.
"""

import ast
import difflib
import inspect
import itertools
import os
import textwrap
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import AnyUrl, BeforeValidator, ByteSize, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from services.common.errors import InvalidValueError

__all__ = ["CommaSeparated", "Settings", "SettingsError", "Variable", "read_secret", "render_help", "variables"]

_SECRET_LIMIT: Final = 64 << 10
"""Largest secret file, in bytes: more is not a secret but a mistake."""


class SettingsError(InvalidValueError):
    """The environment does not hold valid settings; the text names every variable that is wrong."""


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part for part in (part.strip() for part in value.split(",")) if part)
    return value


_Item = TypeVar("_Item")
CommaSeparated = Annotated[tuple[_Item, ...], NoDecode, BeforeValidator(_split)]
"""A setting of several values, written with commas between them."""


class Settings(BaseSettings):
    """Base of the services' settings; a subclass sets `env_prefix` in its `model_config`."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    @classmethod
    def variable(cls, field: str) -> str:
        """Return the name of a setting's environment variable, for messages that advise to set it."""
        return _environment_name(cls, field)

    @classmethod
    def load(cls) -> Self:
        """Read the settings from the environment.

        Raises
        ------
        SettingsError
            A variable is missing, unknown or wrong.
        """
        problems = _unknown_variables(cls, os.environ)
        try:
            settings = cls()
        except ValidationError as error:
            problems += [_problem(cls, detail) for detail in error.errors(include_url=False, include_input=False)]
        else:
            if not problems:
                return settings
        raise SettingsError("; ".join(problems))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the environment is the only place of settings
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - secrets are named one by one, see below
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read constructor arguments, then the environment, then secret files."""
        return init_settings, env_settings, _SecretFiles(settings_cls)


class _SecretFiles(PydanticBaseSettingsSource):
    """Reads secrets from the files that `<NAME>_FILE` variables name."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return the secret, or None where the field is no secret or no file is named."""
        variable = _environment_name(self.settings_cls, field_name)
        path = os.environ.get(f"{variable}_FILE")
        if not path or not _is_secret(field.annotation):
            return None, field_name, False
        if os.environ.get(variable):
            raise SettingsError(f"{variable} and {variable}_FILE are both set: leave one")
        return read_secret(f"{variable}_FILE", Path(path)), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return every secret that a file is named for."""
        fields = self.settings_cls.model_fields
        values = {name: self.get_field_value(field, name)[0] for name, field in fields.items()}
        return {name: value for name, value in values.items() if value is not None}


def read_secret(variable: str, path: Path) -> SecretStr:
    """Read a secret from a file; the end of its last line is none of it.

    Parameters
    ----------
    variable
        What names the file, for errors.

    Raises
    ------
    SettingsError
        The file cannot be read, or holds no secret.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_SECRET_LIMIT + 1)
    except OSError as error:
        raise SettingsError(f"{variable}: cannot read {path}: {error.strerror}") from None
    try:
        secret = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise SettingsError(f"{variable}: {path} is not UTF-8 text") from None
    if not secret or len(content) > _SECRET_LIMIT:
        raise SettingsError(f"{variable}: {path} has {len(content) or 'no'} bytes, which is no secret")
    return SecretStr(secret)


def _environment_name(settings: type[BaseSettings], field_name: str) -> str:
    return f"{settings.model_config.get('env_prefix', '')}{field_name}".upper()


def _is_secret(annotation: object) -> bool:
    return annotation is SecretStr or SecretStr in get_args(annotation)


def _unknown_variables(settings: type[BaseSettings], environment: Mapping[str, str]) -> list[str]:
    prefix = _environment_name(settings, "")
    known = {_environment_name(settings, name): field for name, field in settings.model_fields.items()}
    names = [*known, *(f"{name}_FILE" for name, field in known.items() if _is_secret(field.annotation))]
    problems = []
    for variable in sorted(name for name, value in environment.items() if value):
        if variable.upper().startswith(prefix) and variable.upper() not in names:
            nearest = difflib.get_close_matches(variable.upper(), names, n=1, cutoff=0)
            problems.append(f"{variable} is not a setting" + "".join(f": is {name} meant?" for name in nearest))
    return problems


def _problem(settings: type[BaseSettings], detail: Mapping[str, Any]) -> str:
    variable = _environment_name(settings, str(detail["loc"][0])) if detail["loc"] else "the settings together"
    if detail["type"] == "missing":
        secret = _is_secret(settings.model_fields[str(detail["loc"][0])].annotation)
        return f"{variable} is not set" + (f" (nor {variable}_FILE)" if secret else "")
    place = "".join(f"[{part}]" for part in detail["loc"][1:])
    return f"{variable}{place}: {detail['msg']}"


@dataclass(frozen=True, slots=True)
class Variable:
    """One setting, for people."""

    name: str
    """Name of the environment variable."""
    type: str
    """What it holds."""
    default: str | None
    """Value if it is not set; None where it must be set."""
    description: str
    """What it does."""


def variables(settings: type[Settings]) -> tuple[Variable, ...]:
    """Describe a class's settings, in the order of its fields.

    Raises
    ------
    SettingsError
        A field has no documentation.
    """
    found = []
    docstrings = _docstrings(settings)
    for name, field in settings.model_fields.items():
        variable = _environment_name(settings, name)
        if name not in docstrings:
            raise SettingsError(f"{variable}: the field {settings.__name__}.{name} has no docstring")
        default = None if field.is_required() else _default_text(field.get_default(call_default_factory=True))
        description = " ".join(docstrings[name].split())
        if _is_secret(field.annotation):
            description += f" Or {variable}_FILE, a file that holds it."
        found.append(Variable(variable, _type_name(field.annotation), default, description))
    return tuple(found)


def _docstrings(settings: type[Settings]) -> dict[str, str]:
    """Return what the source says below each field.

    pydantic can do the same for every class that is made, which takes a part of the time in which a service starts.
    """
    found: dict[str, str] = {}
    for base in reversed(settings.__mro__):
        if issubclass(base, Settings):
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
            found |= _documented(tree.body[0])
    return found


def _documented(definition: ast.stmt) -> dict[str, str]:
    """Return the docstrings of a class's own fields."""
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    found = {}
    for field, text in itertools.pairwise(body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(docstring))):
                found[name] = docstring
    return found


def render_help(program: str, purpose: str, groups: Iterable[type[Settings]]) -> str:
    """Write the text of a service's `--help`.

    Parameters
    ----------
    program
        How the service is started.
    purpose
        What the service does.
    groups
        The settings it reads, class by class.
    """
    lines = [f"usage: {program} [--help]", "", textwrap.fill(purpose, 100), "", "Settings, from environment variables:"]
    for settings in groups:
        for variable in variables(settings):
            default = "required" if variable.default is None else f"default: {variable.default or 'none'}"
            lines += ["", f"  {variable.name}  ({variable.type}; {default})"]
            lines.append(textwrap.fill(variable.description, 100, initial_indent=" " * 6, subsequent_indent=" " * 6))
    return "\n".join(lines) + "\n"


_TYPE_NAMES: Final[Mapping[object, str]] = {
    SecretStr: "secret",
    Path: "path",
    str: "text",
    int: "number",
    float: "number",
    bool: "true or false",
    ByteSize: "size, such as 16MiB",
}


def _type_name(annotation: object) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in _TYPE_NAMES:
        return _TYPE_NAMES[annotation]
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join(_type_name(argument) for argument in arguments if argument is not type(None))
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (tuple, frozenset, list, set):
        return f"{_type_name(arguments[0])}, several with commas"
    return _class_name(annotation)


def _class_name(annotation: object) -> str:
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " | ".join(str(member.value) for member in annotation)
    if isinstance(annotation, type) and issubclass(annotation, AnyUrl):
        return "URL"
    return getattr(annotation, "__name__", str(annotation)).lower()


def _default_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, ByteSize):
        return value.human_readable(separator="").replace(".0", "")
    if isinstance(value, tuple | list | set | frozenset):
        return ",".join(str(item) for item in value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)
