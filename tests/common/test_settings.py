from enum import StrEnum
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import ByteSize, Field, HttpUrl, SecretStr
from pydantic_settings import SettingsConfigDict

from services.common.object_store.settings import ObjectStoreSettings
from services.common.repository_name import RepositoryNameField
from services.common.settings import CommaSeparated, Settings, SettingsError, render_help, variables
from tests.support.documentation import settings_discrepancies, settings_table

TOKEN = "s3cret-t0ken"  # noqa: S105 - what must never be shown


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Example(Settings):
    model_config = SettingsConfigDict(env_prefix="EXAMPLE_")

    token: SecretStr
    """Token of the door."""
    spare_token: SecretStr | None = None
    """Token of the back door."""
    socket: Path = Path("/run/example.sock")
    """Where it listens."""
    limit: Annotated[ByteSize, Field(ge=1)] = ByteSize(16 << 20)
    """Most that is read."""
    wait: Annotated[float, Field(gt=0)] = 2.5
    """Longest wait,
    in seconds."""
    repositories: CommaSeparated[RepositoryNameField] = ()
    """Repositories that may be used."""
    colour: Colour = Colour.RED
    """Colour of the door."""
    upstream: HttpUrl | None = None
    """Where questions go."""
    strict: bool = False
    """Whether to be strict."""


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_TOKEN", TOKEN)


def refused() -> str:
    with pytest.raises(SettingsError) as failure:
        Example.load()
    assert TOKEN not in str(failure.value)
    return str(failure.value)


def test_values_are_read_in_their_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_LIMIT", "3MiB")
    monkeypatch.setenv("EXAMPLE_REPOSITORIES", "a.cern.ch, b.cern.ch")
    monkeypatch.setenv("EXAMPLE_COLOUR", "blue")
    monkeypatch.setenv("EXAMPLE_UPSTREAM", "http://host:1")
    monkeypatch.setenv("EXAMPLE_STRICT", "true")

    settings = Example.load()

    assert settings.token.get_secret_value() == TOKEN
    assert settings.limit == 3 << 20
    assert settings.repositories == ("a.cern.ch", "b.cern.ch")
    assert settings.colour is Colour.BLUE
    assert str(settings.upstream) == "http://host:1/"
    assert settings.strict
    assert TOKEN not in repr(settings)


def test_a_missing_setting_is_named_with_its_file_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXAMPLE_TOKEN")

    assert refused() == "EXAMPLE_TOKEN is not set (nor EXAMPLE_TOKEN_FILE)"


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_WAIT", "")
    monkeypatch.setenv("EXAMPLE_SPARE_TOKEN_FILE", "")
    monkeypatch.setenv("EXAMPLE_OF_SOMETHING_ELSE", "")

    assert Example.load().wait == 2.5


def test_an_unknown_variable_is_refused_with_the_nearest_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_REPOSITORY", "a.cern.ch")
    monkeypatch.setenv("example_sokcet", "/x")
    monkeypatch.setenv("EXAMPLES_ARE_OTHERS", "x")

    assert refused() == (
        "EXAMPLE_REPOSITORY is not a setting: is EXAMPLE_REPOSITORIES meant?; "
        "example_sokcet is not a setting: is EXAMPLE_SOCKET meant?"
    )


def test_a_file_is_no_way_to_give_what_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_SOCKET_FILE", "/x")

    assert refused().startswith("EXAMPLE_SOCKET_FILE is not a setting: is ")


def test_all_problems_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_WAIT", "0")
    monkeypatch.setenv("EXAMPLE_COLOUR", "green")
    monkeypatch.setenv("EXAMPLE_REPOSITORIES", "a.cern.ch,../b")
    monkeypatch.setenv("EXAMPLE_BOGUS", "1")

    text = refused()

    assert "EXAMPLE_BOGUS is not a setting" in text
    assert "EXAMPLE_WAIT: Input should be greater than 0" in text
    assert "EXAMPLE_COLOUR: Input should be 'red' or 'blue'" in text
    assert "EXAMPLE_REPOSITORIES[1]: Value error, not a repository name" in text


def test_a_secret_is_read_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    monkeypatch.delenv("EXAMPLE_TOKEN")
    monkeypatch.setenv("EXAMPLE_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("EXAMPLE_SPARE_TOKEN_FILE", str(tmp_path / "token"))

    settings = Example.load()

    assert settings.token.get_secret_value() == "from-file"
    assert settings.spare_token is not None
    assert settings.spare_token.get_secret_value() == "from-file"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot read .*: No such file or directory"),
        (b"", "has no bytes, which is no secret"),
        (b"\n", "has 1 bytes, which is no secret"),
        (b"x" * 100_000, "has 65537 bytes, which is no secret"),
        (b"\xff\xfe", "is not UTF-8 text"),
    ],
    ids=["missing", "empty", "blank", "huge", "binary"],
)
def test_a_useless_secret_file_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    monkeypatch.setenv("EXAMPLE_SPARE_TOKEN_FILE", str(tmp_path / "token"))

    with pytest.raises(SettingsError, match=f"EXAMPLE_SPARE_TOKEN_FILE: .*{reason}"):
        Example.load()


def test_a_secret_and_its_file_are_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_TOKEN_FILE", "/somewhere")

    assert refused() == "EXAMPLE_TOKEN and EXAMPLE_TOKEN_FILE are both set: leave one"


def test_an_endpoint_with_a_password_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ENDPOINT": f"http://user:{TOKEN}@host", "ACCESS_KEY": "a", "SECRET_KEY": TOKEN}.items():
        monkeypatch.setenv(f"LAYER_STORE_{name}", value)

    with pytest.raises(SettingsError, match=r"LAYER_STORE_ENDPOINT: .*without credentials") as failure:
        ObjectStoreSettings.load()

    assert TOKEN not in str(failure.value)


def test_help_tells_everything() -> None:
    text = render_help("python -m example", "Opens the door.", [Example])

    assert text.startswith("usage: python -m example [--help]\n\nOpens the door.\n")
    assert "\n  EXAMPLE_TOKEN  (secret; required)\n      Token of the door. Or EXAMPLE_TOKEN_FILE, a file " in text
    assert "\n  EXAMPLE_SOCKET  (path; default: /run/example.sock)\n      Where it listens.\n" in text
    assert "\n  EXAMPLE_LIMIT  (size, such as 16MiB; default: 16MiB)\n" in text
    assert "\n  EXAMPLE_WAIT  (number; default: 2.5)\n      Longest wait, in seconds.\n" in text
    assert "\n  EXAMPLE_REPOSITORIES  (text, several with commas; default: none)\n" in text
    assert "\n  EXAMPLE_COLOUR  (red | blue; default: red)\n" in text
    assert "\n  EXAMPLE_UPSTREAM  (URL; default: none)\n" in text
    assert "\n  EXAMPLE_STRICT  (true or false; default: false)\n" in text


def test_defaults_in_help_are_read_back_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in variables(Example):
        if variable.default:
            monkeypatch.setenv(variable.name, variable.default)

    assert Example.load() == Example(token=SecretStr(TOKEN))


def test_a_setting_without_documentation_is_an_error() -> None:
    class Silent(Settings):
        model_config = SettingsConfigDict(env_prefix="SILENT_")

        door: str = "open"

    with pytest.raises(SettingsError, match=r"SILENT_DOOR: the field Silent\.door has no docstring"):
        variables(Silent)


def test_documentation_that_differs_from_the_code_is_found(tmp_path: Path) -> None:
    document = tmp_path / "README.md"
    rows = settings_table(Example)
    document.write_text("# Settings\n\n| Variable | Type | Default | Meaning |\n|---|---|---|---|\n" + "\n".join(rows))
    assert settings_discrepancies(document, [Example]) == []

    document.write_text("\n".join(rows[1:]) + "\n| `EXAMPLE_OLD` | text | | Gone. |\n")
    assert settings_discrepancies(document, [Example]) == [
        f"add: {rows[0]}",
        "remove: | `EXAMPLE_OLD` | text | | Gone. |",
    ]


def test_messages_can_name_a_setting_as_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(Example.variable("wait"), "7")
    assert Example.load().wait == 7
