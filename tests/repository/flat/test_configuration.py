"""What an image's configuration says, whoever wrote it."""

import json

import pytest

from services.repository.errors import ImageRefusedError
from services.repository.flat.configuration import RunConfiguration, read_configuration


def _read(created: str | None = None, **running: object) -> RunConfiguration:
    return read_configuration(json.dumps({"created": created, "config": running}).encode())


def test_everything_that_matters_is_read() -> None:
    assert _read(
        "2024-05-06T07:08:09.123456789Z",
        Env=["PATH=/bin", "A=b=c", "EMPTY=", "HOSTS"],
        Entrypoint=["/entry", "-x"],
        Cmd=["one", ""],
        Labels={"k": "v"},
        User="nobody",
    ) == RunConfiguration(
        environment={"PATH": "/bin", "A": "b=c", "EMPTY": "", "HOSTS": None},
        left_out=(),
        entrypoint=("/entry", "-x"),
        command=("one", ""),
        labels={"k": "v"},
        created=1714979289,
    )


@pytest.mark.parametrize("content", [b"{}", b'{"config": null}', b'{"config": {"Env": null, "Cmd": null}}'])
def test_what_an_image_does_not_say_is_empty(content: bytes) -> None:
    assert read_configuration(content) == RunConfiguration(
        environment={}, left_out=(), entrypoint=(), command=(), labels={}, created=0
    )


def test_of_a_variable_that_is_there_twice_the_last_value_counts() -> None:
    environment = _read(Env=["A=first", "B=b", "A=last"]).environment
    assert list(environment.items()) == [("B", "b"), ("A", "last")]


@pytest.mark.parametrize(
    "name", ["", "1A", "A-B", "A.B", "A B", "A;reboot", "$(reboot)", "`reboot`", "A\nB", "\u00c4", "a[0]", "A+"]
)
def test_a_variable_that_no_shell_can_set_is_left_out_and_named(name: str) -> None:
    configuration = _read(Env=["A=a", f"{name}=b", f"{name}=c"])
    assert configuration.environment == {"A": "a"}
    assert configuration.left_out == (name,)


def test_a_variable_with_a_nul_byte_is_left_out() -> None:
    assert _read(Env=["A=a\0b"]).left_out == ("A",)


@pytest.mark.parametrize(
    ("created", "seconds"),
    [
        ("1970-01-01T01:00:05+01:00", 5),
        ("0001-01-01T00:00:00Z", 0),  # Go's zero
        ("9999-12-31T23:59:59Z", 253402300799),
        ("yesterday", 0),
        ("2024-05-06T07:08:09", 0),
        ("", 0),
        (None, 0),
    ],
)
def test_the_time_of_an_image_is_in_whole_seconds(created: str | None, seconds: int) -> None:
    assert _read(created).created == seconds


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"[]", "the document"),
        (b"{", "Invalid JSON"),
        (b'{"config": {"Env": "A=b"}}', "config.Env"),
        (b'{"config": {"Env": ["A=\xff"]}}', "Invalid JSON"),
        (b'{"config": {"Cmd": [1]}}', r"config.Cmd.0"),
        (b'{"config": {"Entrypoint": ["a\\u0000b"]}}', "Entrypoint has a NUL byte"),
        (b'{"config": {"Cmd": ["a\\u0000b"]}}', "Cmd has a NUL byte"),
        (b'{"config": {"Labels": {"a": 1}}}', "config.Labels.a"),
    ],
)
def test_a_configuration_that_cannot_be_run_is_refused(content: bytes, text: str) -> None:
    with pytest.raises(ImageRefusedError, match=text):
        read_configuration(content)
