import io
import json
import logging
import sys
import warnings
from datetime import datetime
from typing import Any
from urllib.parse import quote

import pytest
import structlog
from pydantic import SecretStr

from services.common.logs import LogFormat, LogLevel, configure_logging

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCY"  # noqa: S105 - what must never be shown
SECRET_END = "bPxRfiCY"  # noqa: S105 - the end of it, as its start may be hidden only


pytestmark = pytest.mark.usefixtures("own_logging")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


def lines(output: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_an_event_is_one_json_object_with_context_level_and_utc_time(output: io.StringIO) -> None:
    configure_logging(stream=output)
    structlog.contextvars.bind_contextvars(request="r1")

    structlog.get_logger("services.example").bind(digest="d1").info("layer stored", size=3)

    structlog.contextvars.clear_contextvars()
    (event,) = lines(output)
    stamp = datetime.fromisoformat(event.pop("timestamp"))
    assert stamp.utcoffset() is not None
    assert stamp.utcoffset().total_seconds() == 0  # type: ignore[union-attr]
    assert event == {
        "event": "layer stored",
        "logger": "services.example",
        "level": "info",
        "request": "r1",
        "digest": "d1",
        "size": 3,
    }


def test_events_below_warnings_can_go_elsewhere(output: io.StringIO) -> None:
    calm = io.StringIO()
    configure_logging(stream=output, calm=calm)
    structlog.get_logger().info("done")
    logging.getLogger("library").warning("odd")
    structlog.get_logger().error("failed")
    assert [event["event"] for event in lines(calm)] == ["done"]
    assert [event["event"] for event in lines(output)] == ["odd", "failed"]


def test_a_terminal_gets_text_for_people_unless_json_is_asked_for() -> None:
    terminal = Terminal()
    configure_logging(stream=terminal)
    structlog.get_logger().info("hello", size=3)
    assert "hello" in terminal.getvalue()
    with pytest.raises(json.JSONDecodeError):
        json.loads(terminal.getvalue())

    terminal = Terminal()
    configure_logging(output=LogFormat.JSON, stream=terminal)
    structlog.get_logger().info("hello")
    assert json.loads(terminal.getvalue())["event"] == "hello"


def test_text_for_people_can_be_had_in_a_file_without_colours(output: io.StringIO) -> None:
    configure_logging(output=LogFormat.CONSOLE, stream=output)
    structlog.get_logger("services.example").info("hello", size=3)

    assert "hello" in output.getvalue()
    assert "\x1b" not in output.getvalue()


def test_what_libraries_log_takes_the_same_way(output: io.StringIO) -> None:
    configure_logging(stream=output)

    logging.getLogger("aiohttp.access").info("%s %d", "GET /", 200)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)

    first, second = lines(output)
    assert first["event"] == "GET / 200"
    assert first["logger"] == "aiohttp.access"
    assert first["level"] == "info"
    assert "DeprecationWarning: old" in second["event"]


@pytest.mark.parametrize("level", list(LogLevel))
def test_less_severe_events_than_the_level_are_left_out(output: io.StringIO, level: LogLevel) -> None:
    configure_logging(level=level, stream=output)
    for name in LogLevel:
        getattr(structlog.get_logger("ours"), name)("event")
        getattr(logging.getLogger("theirs"), name)("event")

    assert {event["level"] for event in lines(output)} == set(list(LogLevel)[list(LogLevel).index(level) :])


def test_clients_never_log_the_headers_they_sign(output: io.StringIO) -> None:
    configure_logging(level=LogLevel.DEBUG, stream=output)

    logging.getLogger("botocore.auth").debug("CanonicalRequest: %s", SECRET)
    logging.getLogger("botocore.hooks").info("kept")

    assert [event["event"] for event in lines(output)] == ["kept"]


@pytest.mark.parametrize("form", [LogFormat.JSON, LogFormat.CONSOLE])
@pytest.mark.parametrize(
    "value",
    [
        {"value": SecretStr(SECRET)},
        {"values": [SecretStr(SECRET)]},
        {"settings": {"inner": (SecretStr(SECRET),)}},
        {"secret_key": SECRET},
        {"LAYER_STORE_SECRET_KEY": SECRET},
        {"event_token": SECRET},
        {"password": SECRET},
        {"headers": {"Authorization": f"Bearer {SECRET}"}},
        {"headers": [f"Authorization: Bearer {SECRET}"]},
        {"headers": f"{{'Authorization': 'Basic {SECRET}'}}"},
        {"url": f"http://user:{quote(SECRET, safe='')}@host/"},
        {"url": f"http://host/v1/events?token={SECRET}&x=1"},
        {"url": f"http://host/?X-Amz-Signature={SECRET}"},
        {"error": ValueError(f"Authorization: Bearer {SECRET}")},
        {"object": type("Request", (), {"__str__": lambda _: f"GET / Bearer {SECRET}"})()},
    ],
    ids=lambda value: str(value).replace(SECRET, "S")[:40],
)
def test_no_secret_is_written(output: io.StringIO, form: LogFormat, value: dict[str, object]) -> None:
    configure_logging(output=form, stream=output)

    structlog.get_logger().info("event", kept="kept", **value)

    assert SECRET_END not in output.getvalue()
    assert "***" in output.getvalue()
    assert "kept" in output.getvalue()


@pytest.mark.parametrize("form", [LogFormat.JSON, LogFormat.CONSOLE])
def test_no_secret_is_written_with_an_exception(output: io.StringIO, form: LogFormat) -> None:
    configure_logging(output=form, stream=output)
    local_variable = SecretStr(SECRET).get_secret_value()

    for log in (structlog.get_logger("ours"), logging.getLogger("theirs")):
        try:
            refuse(f"authorization: AWS4-HMAC-SHA256 Credential=AK/2026/s3, Signature={local_variable}")
        except RuntimeError:
            log.exception("it failed")

    assert SECRET_END not in output.getvalue()
    assert output.getvalue().count("RuntimeError") >= 2
    assert "authorization: AWS4-HMAC-SHA256 ***" in output.getvalue()


def refuse(reason: str) -> None:
    raise RuntimeError(reason)


def test_the_last_set_up_counts(output: io.StringIO) -> None:
    log = structlog.get_logger("early")
    configure_logging(stream=io.StringIO())
    configure_logging(stream=output)

    log.info("once")
    logging.getLogger("theirs").info("once")

    assert [event["event"] for event in lines(output)] == ["once", "once"]


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    structlog.get_logger().info("hello")

    assert json.loads(capsys.readouterr().err)["event"] == "hello"
    assert sys.stderr is not None
