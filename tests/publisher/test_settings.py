"""Settings that cannot work are refused with the name of the variable."""

from collections.abc import Mapping

import pytest

from services.common.settings import SettingsError
from services.publisher.settings import PublisherSettings, RepositoryKind

_GOOD: Mapping[str, str] = {
    "PUBLISHER_REPOSITORY": "test.cern.ch",
    "PUBLISHER_EVENT_TOKEN": "0123456789abcdef",
}


def _load(monkeypatch: pytest.MonkeyPatch, changed: Mapping[str, str]) -> PublisherSettings:
    for name, value in {**_GOOD, **changed}.items():
        monkeypatch.setenv(name, value)
    return PublisherSettings.load()


def test_the_repository_and_the_token_are_all_that_must_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _load(monkeypatch, {})
    assert settings.repository_kind is RepositoryKind.DIRECTORY
    assert "0123456789abcdef" not in repr(settings)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("PUBLISHER_REPOSITORY", "Not_A_Name", "PUBLISHER_REPOSITORY: "),
        ("PUBLISHER_REPOSITORY", "", "PUBLISHER_REPOSITORY is not set"),
        ("PUBLISHER_EVENT_TOKEN", "", "PUBLISHER_EVENT_TOKEN is not set"),
        (
            "PUBLISHER_EVENT_TOKEN",
            "0123456789abcde",
            "PUBLISHER_EVENT_TOKEN: Value error, has fewer than 16 characters",
        ),
        (
            "PUBLISHER_REPOSITORY_KIND",
            "nativ",
            "PUBLISHER_REPOSITORY_KIND: Input should be 'directory', 'cvmfs_server' or 'native'",
        ),
        ("PUBLISHER_LAYOUT", "round", "PUBLISHER_LAYOUT: Input should be 'flat' or 'ducc'"),
        ("PUBLISHER_PORT", "70000", "PUBLISHER_PORT: "),
        ("PUBLISHER_BATCH_LAYERS", "0", "PUBLISHER_BATCH_LAYERS: "),
        ("PUBLISHER_SWEEP_INTERVAL", "-1", "PUBLISHER_SWEEP_INTERVAL: "),
        ("PUBLISHER_SWEEP_INTERVALL", "5", "is PUBLISHER_SWEEP_INTERVAL meant"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, setting: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError, match=f"^{said}|{said}"):
        _load(monkeypatch, {setting: value})


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://publisher:hidden@db/journal", "has a password"),
        ("postgresql://publisher@db/journal?password=hidden", "has a password"),
        ("mysql://publisher@db/journal", "is no postgresql://"),
        ("postgresql://publisher@db", "is no postgresql://"),
    ],
)
def test_the_address_of_a_database_holds_no_password(monkeypatch: pytest.MonkeyPatch, url: str, said: str) -> None:
    monkeypatch.setenv("PUBLISHER_DATABASE", url)
    with pytest.raises(SettingsError, match=said) as raised:
        PublisherSettings.load()
    assert "hidden" not in str(raised.value)
