"""Whitelists: their bytes, and what is wrong with bad ones."""

import hashlib
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.common.repository_name import RepositoryName
from services.repository.native.records import ContentHash, HashAlgorithm
from services.repository.native.trust.errors import LetterError, SignatureError, TrustError, WhitelistError
from services.repository.native.trust.keys import MasterKey, RepositoryKey
from services.repository.native.trust.letter import seal
from services.repository.native.trust.whitelist import Whitelist, fingerprint

NAME = RepositoryName("list.example.org")
NOW = datetime(2026, 11, 24, 6, 44, 15, tzinfo=UTC)
MASTER = MasterKey.generate()
CERTIFICATE = RepositoryKey.generate().certify(NAME, now=NOW)
LIST = Whitelist(
    repository=NAME,
    issued=NOW,
    expires=NOW + timedelta(days=30),
    certificates=(ContentHash.of(CERTIFICATE.der),),
)


def body(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def test_the_bytes_are_those_of_the_format() -> None:
    hexdigits = hashlib.sha1(CERTIFICATE.der, usedforsecurity=False).hexdigest().upper()
    pairs = ":".join(hexdigits[index : index + 2] for index in range(0, 40, 2))
    text = body("20261124064415", "E20261224064415", f"N{NAME}", pairs)
    signed = LIST.sign(MASTER, algorithm=HashAlgorithm.SHA1)
    assert signed[:-256] == text + b"--\n" + hashlib.sha1(text, usedforsecurity=False).hexdigest().encode() + b"\n"


def test_openssl_agrees_with_the_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "crt").write_bytes(CERTIFICATE.encode())
    shown = subprocess.run(
        ["openssl", "x509", "-in", tmp_path / "crt", "-noout", "-fingerprint", "-sha1"], capture_output=True, check=True
    ).stdout.decode()
    assert shown.strip().partition("=")[2] == fingerprint(CERTIFICATE, HashAlgorithm.SHA1)


def test_other_hashes_are_named_in_upper_case() -> None:
    name = fingerprint(CERTIFICATE, HashAlgorithm.SHAKE128)
    assert name.endswith("-SHAKE128")
    other = Whitelist(
        repository=NAME,
        issued=NOW,
        expires=NOW + timedelta(days=1),
        certificates=(ContentHash.of(CERTIFICATE.der, HashAlgorithm.SHAKE128),),
    )
    signed = other.sign(MASTER, algorithm=HashAlgorithm.SHAKE128)
    assert name.encode() + b"\n--\n" in signed
    assert Whitelist.verify(signed, MASTER.public_key) == other
    assert other.allows(CERTIFICATE)


def test_what_was_signed_is_read_back() -> None:
    read = Whitelist.verify(LIST.sign(MASTER, algorithm=HashAlgorithm.SHA1), MASTER.public_key)
    assert read == LIST
    read.check(repository=NAME, certificate=CERTIFICATE, now=NOW)


def test_comments_behind_fingerprints_are_no_part_of_them() -> None:
    pairs = fingerprint(CERTIFICATE, HashAlgorithm.SHA1)
    for comment in (" # the old one", "\tsince May", "#x"):
        text = body("20261124064415", "E20261224064415", f"N{NAME}", pairs + comment)
        read = Whitelist.verify(seal(text, MASTER.sign, algorithm=HashAlgorithm.SHA1), MASTER.public_key)
        assert read.certificates == LIST.certificates


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (("",), "does not begin"),
        (("20261124064415", "E20261224064415"), "does not begin"),
        (("20261124064415", "20261224064415", "Nlist.example.org"), "does not begin"),
        (("2026112406441", "E20261224064415", "Nlist.example.org"), "14 digits"),
        (("20261124064415", "E20261324064415", "Nlist.example.org"), "14 digits"),
        (("20261124064415", "E202612240644150", "Nlist.example.org"), "14 digits"),
        (("20261124064415", "E20261224064415", "N../x"), "cannot be"),
        (("20261124064415", "E20261224064415", "Nlist.example.org", "Vpkcs7"), "no fingerprint"),
        (("20261124064415", "E20261224064415", "Nlist.example.org", "C5:14"), "no fingerprint"),
    ],
)
def test_malformed_ones_are_refused(lines: tuple[str, ...], reason: str) -> None:
    signed = seal(body(*lines), MASTER.sign, algorithm=HashAlgorithm.SHA1)
    with pytest.raises(WhitelistError, match=reason):
        Whitelist.verify(signed, MASTER.public_key)


def test_changed_ones_are_refused() -> None:
    signed = LIST.sign(MASTER, algorithm=HashAlgorithm.SHA1)
    later = signed.replace(b"E20261224", b"E20271224")
    with pytest.raises(LetterError, match="its hash line says"):
        Whitelist.verify(later, MASTER.public_key)
    text = later.partition(b"--\n")[0]
    forged = seal(text, RepositoryKey.generate().sign, algorithm=HashAlgorithm.SHA1)
    with pytest.raises(SignatureError):
        Whitelist.verify(forged, MASTER.public_key)
    for size in (0, 10, len(text) + 3, len(text) + 20, len(signed) - 1):
        with pytest.raises(TrustError):
            Whitelist.verify(signed[:size], MASTER.public_key)


def test_those_of_no_use_are_refused() -> None:
    with pytest.raises(WhitelistError, match=r"is of list\.example\.org, not of other\.example\.org"):
        LIST.check(repository=RepositoryName("other.example.org"), certificate=CERTIFICATE, now=NOW)
    other = RepositoryKey.generate().certify(NAME, now=NOW)
    with pytest.raises(WhitelistError, match=fingerprint(other, HashAlgorithm.SHA1)):
        LIST.check(repository=NAME, certificate=other, now=NOW)


def test_clients_count_in_whole_hours() -> None:
    last = datetime(2026, 12, 24, 5, 59, 59, tzinfo=UTC)
    LIST.check(repository=NAME, certificate=CERTIFICATE, now=last)
    with pytest.raises(WhitelistError, match="expired at 2026-12-24 06:00 UTC"):
        LIST.check(repository=NAME, certificate=CERTIFICATE, now=last + timedelta(seconds=1))
