"""The page of errors has the words of the code, and something about every kind of error."""

import ast
import importlib
import inspect
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from services.common.errors import SuiteError

_ROOT: Final = Path(__file__).parents[2]
_PAGE: Final = (_ROOT / "docs" / "errors.md").read_text().partition("\n## Settings, processes, files\n")[2]
_GAP: Final = "\N{HORIZONTAL ELLIPSIS}"


def _sources() -> Iterator[Path]:
    yield from (_ROOT / "services").rglob("*.py")


def _template(node: ast.expr) -> str:
    """Return the words of a message, with gaps for what is filled in."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(_template(value) if isinstance(value, ast.Constant) else _GAP for value in values)
    return ""


def _messages() -> Mapping[str, list[str]]:
    """Return the messages of the code by the classes that they are of."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in _sources():
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id=name), args=arguments) if name.endswith("Error"):
                    found[name] += [_template(argument) for argument in arguments]
    return {name: [text for text in texts if text] for name, texts in found.items()}


def _phrases() -> list[str]:
    cells = re.findall(r"^\| (`.+?) \| ", _PAGE, re.MULTILINE)
    return [phrase for cell in cells for phrase in re.findall(r"`([^`]+)`", cell)]


def _says(message: str, phrase: str) -> bool:
    return re.search(".*".join(re.escape(part.strip()) for part in phrase.split(_GAP)), message) is not None


def _kinds() -> set[str]:
    """Return the kinds of errors that people see, and that have words of their own."""
    for path in _sources():
        if path.name != "__main__.py" and "class " in path.read_text():
            importlib.import_module(".".join(path.relative_to(_ROOT).with_suffix("").parts))
    kinds, waiting = set(), [SuiteError]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if inspect.getmodule(kind).__name__.startswith("services.") and not kind.__name__.startswith("_"):  # type: ignore[union-attr] # each has one
            kinds.add(kind.__name__)
    return kinds


def test_the_words_are_those_of_the_code() -> None:
    messages = [message for texts in _messages().values() for message in texts]
    phrases = _phrases()
    assert len(phrases) > 100
    assert [phrase for phrase in phrases if not any(_says(message, phrase) for message in messages)] == []


def test_every_kind_of_error_is_there() -> None:
    messages, phrases = _messages(), _phrases()
    missing = [
        kind
        for kind in sorted(_kinds() & set(messages))
        if messages[kind] and not any(_says(message, phrase) for message in messages[kind] for phrase in phrases)
    ]
    assert missing == []
