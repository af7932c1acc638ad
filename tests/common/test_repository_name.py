import pytest

from services.common.errors import InvalidValueError
from services.common.repository_name import RepositoryName


@pytest.mark.parametrize(
    "value", ["test.cern.ch", "a", "0", "a-b.c-d", "unpacked.cern.ch", "x" * 60, "a.b.c.d.e", "a--b"]
)
def test_accepts(value: str) -> None:
    assert RepositoryName(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "a.",
        "-a",
        "a-",
        "a.-b",
        "a-.b",
        "A",
        "a_b",
        "a/b",
        "../a",
        "a\n",
        "a b",
        "\u00e9",
        "x" * 61,
        "a\0",
        "--help",
        "$(x)",
        "a;b",
        "\u0661",
    ],
)
def test_refuses(value: str) -> None:
    with pytest.raises(InvalidValueError, match="not a repository name"):
        RepositoryName(value)


def test_a_long_value_costs_nothing() -> None:
    with pytest.raises(InvalidValueError) as caught:
        RepositoryName("a-" * 1_000_000)
    assert len(str(caught.value)) < 200
