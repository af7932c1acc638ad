import pickle

import pytest
from pydantic import TypeAdapter, ValidationError

from services.common.digest import Digest, DigestField
from services.common.errors import InvalidValueError

HEX = "0123456789abcdef" * 4


def test_is_its_hex_digits() -> None:
    digest = Digest(HEX)
    assert (digest, digest.oci, digest.short) == (HEX, f"sha256:{HEX}", "0123456789ab")
    assert Digest.from_oci(f"sha256:{HEX}") == digest
    assert pickle.loads(pickle.dumps(digest)) == digest  # noqa: S301 - our own bytes


@pytest.mark.parametrize(
    "value",
    [
        "",
        HEX[1:],
        HEX + "0",
        HEX.upper(),
        HEX[1:] + "g",
        HEX + "\n",
        " " + HEX[1:],
        f"sha256:{HEX}",
        "\uff10" * 64,
        "../" * 21,
    ],
)
def test_is_nothing_else(value: str) -> None:
    with pytest.raises(InvalidValueError, match="not a sha256 digest of 64 lower-case hex digits"):
        Digest(value)


@pytest.mark.parametrize("value", [HEX, f"sha512:{HEX}", f"SHA256:{HEX}", f":{HEX}", ""])
def test_knows_one_algorithm(value: str) -> None:
    with pytest.raises(InvalidValueError, match="only sha256"):
        Digest.from_oci(value)


def test_an_error_quotes_no_more_than_it_must() -> None:
    with pytest.raises(InvalidValueError) as caught:
        Digest("x" * 10_000)
    assert len(str(caught.value)) < 200


def test_a_field_holds_the_checked_type() -> None:
    adapter = TypeAdapter(DigestField)
    assert type(adapter.validate_python(HEX)) is Digest
    for value in (HEX.upper(), 5, None, HEX.encode()[1:]):
        with pytest.raises(ValidationError):
            adapter.validate_python(value)
