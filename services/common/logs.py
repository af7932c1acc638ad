"""Logging: structlog, one line per event on standard error, secrets never rendered.

Code logs through `structlog.get_logger()` with context bound to it (`log.bind(digest=...)`). What libraries log through
the standard library takes the same way out.
"""

import logging
import re
import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TextIO

import structlog
from pydantic import SecretBytes, SecretStr
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ["LogFormat", "LogLevel", "configure_logging", "redact"]

HIDDEN: Final = "**********"
"""What stands in the place of a secret."""

_SECRET_KEY = re.compile(
    r"pass(word|wd|phrase)|secret|token|credential|authorization|api[_-]?key|access[_-]?key|private[_-]?key|cookie"
    r"|signature",
    re.IGNORECASE,
)
"""Keys whose values are not for logs, whatever they hold."""

_SECRET_TEXTS: Final = (
    # A signature is good for a quarter of an hour, and its header goes on with blanks in it.
    re.compile(r"(?P<kept>AWS4-HMAC-SHA256\s+)[^'\"\n]+", re.IGNORECASE),
    re.compile(r"(?P<kept>\b(?:bearer|basic)\s+)[^\s,'\"]{8,}", re.IGNORECASE),
    re.compile(r"(?P<kept>[?&;][\w-]*(?:token|signature|credential|secret|password)[\w-]*=)[^\s&;'\"]+", re.IGNORECASE),
    re.compile(r"(?P<kept>://[^/\s:@]*:)[^/\s@]+(?=@)"),
)
"""Credentials inside texts: authorization headers, query strings, URLs with a password."""

_QUIET: Final[Mapping[str, int]] = {
    # At DEBUG these write signed headers and request bodies.
    "aiobotocore": logging.INFO,
    "botocore": logging.INFO,
    "urllib3": logging.INFO,
    "asyncio": logging.INFO,
    "aiosqlite": logging.INFO,
}


class LogLevel(StrEnum):
    """The least severe events that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def number(self) -> int:
        """The level as the standard library has it."""
        return logging.getLevelNamesMapping()[self.upper()]


class LogFormat(StrEnum):
    """How events are written."""

    AUTO = "auto"
    """`console` on a terminal, `json` elsewhere."""
    JSON = "json"
    """One JSON object per line, for machines."""
    CONSOLE = "console"
    """Aligned and coloured, for people."""


def configure_logging(
    *,
    level: LogLevel = LogLevel.INFO,
    output: LogFormat = LogFormat.AUTO,
    stream: TextIO | None = None,
    calm: TextIO | None = None,
) -> None:
    """Set up logging of the whole process; the last call counts.

    Parameters
    ----------
    level
        The least severe events that are written.
    output
        How they are written.
    stream
        Where they are written, standard error by default.
    calm
        Where those below warnings are written instead, if that is another place.
    """
    stream = stream or sys.stderr
    console = output is LogFormat.CONSOLE or (output is LogFormat.AUTO and stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    # Texts are redacted after exceptions have become text: an exception may quote a header.
    rendering: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        _exceptions(console=console),
        redact,
        _renderer(console=console, colours=stream.isatty()),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level.number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handlers = [logging.StreamHandler(stream)]
    if calm is not None:
        handlers[0].setLevel(logging.WARNING)
        handlers.append(logging.StreamHandler(calm))
        handlers[1].addFilter(lambda record: record.levelno < logging.WARNING)
    for handler in handlers:
        handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=rendering))
    root = logging.getLogger()
    root.handlers = list(handlers)
    root.setLevel(level.number)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, level.number))
    logging.captureWarnings(capture=True)


def _exceptions(*, console: bool) -> Processor:
    # Neither form shows local variables: they may hold secrets.
    if console:
        return structlog.processors.format_exc_info
    return structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))


def _renderer(*, console: bool, colours: bool) -> Processor:
    if console:
        return structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)
    return structlog.processors.JSONRenderer()


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Hide secrets in an event: values of secret types, under credential keys, and credentials inside texts."""
    return {key: HIDDEN if _SECRET_KEY.search(key) else _redacted(value) for key, value in event.items()}


def _redacted(value: object) -> object:
    if isinstance(value, SecretStr | SecretBytes):
        return HIDDEN
    if isinstance(value, str):
        for pattern in _SECRET_TEXTS:
            value = pattern.sub(rf"\g<kept>{HIDDEN}", value)
        return value
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if isinstance(key, str) and _SECRET_KEY.search(key) else _redacted(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_redacted(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    # Anything else would be rendered by its repr, which may quote a secret.
    return _redacted(str(value))
