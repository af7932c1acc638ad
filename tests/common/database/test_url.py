"""What a setting may have as the address of a database."""

import pytest

from services.common.database.url import checked_url


@pytest.mark.parametrize(
    "url", ["postgresql://user@db.example.org/name", "postgresql:///name?host=/run/postgresql&sslmode=verify-full"]
)
def test_an_address_is_taken_as_it_is(url: str) -> None:
    assert checked_url(url, remedy="THE_FILE") == url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://user@db.example.org/name", "is no postgresql://"),
        ("postgresql://user@db.example.org/", "is no postgresql://"),
        ("postgresql://user:hunter2@db.example.org/name", "belongs into THE_FILE"),
        ("postgresql://user@db.example.org/name?password=hunter2", "belongs into THE_FILE"),
    ],
)
def test_what_is_none_or_has_a_secret_is_refused_without_saying_it(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        checked_url(url, remedy="THE_FILE")
    assert "hunter2" not in str(raised.value)
