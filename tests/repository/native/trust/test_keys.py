"""Keys and their files, looked at from outside by openssl."""

import base64
import os
import stat
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from services.common.repository_name import RepositoryName
from services.repository.native.trust.errors import KeyUnusableError, SignatureError
from services.repository.native.trust.keyring import KeyFiles
from services.repository.native.trust.keys import Certificate, MasterKey, PublicKey, RepositoryKey
from tests.repository.native.conftest import NAME

NOW = datetime(2026, 11, 24, tzinfo=UTC)
SUFFIXES = ("masterkey", "pub", "key", "crt")
_PRIVATE_NUMBERS = ("d", "p", "q", "dmp1", "dmq1", "iqmp")


def openssl(*arguments: str, text: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *arguments], input=text, capture_output=True, check=True).stdout


def test_the_files_have_the_names_and_modes_of_cvmfs_server(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        KeyFiles(tmp_path / "keys", NAME).complete(now=NOW)
    finally:
        os.umask(old)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys").iterdir()}
    assert modes == {f"{NAME}.masterkey": 0o400, f"{NAME}.pub": 0o444, f"{NAME}.key": 0o400, f"{NAME}.crt": 0o444}


def test_openssl_reads_the_files(made_keys: Path) -> None:
    path = {suffix: str(made_keys / f"{NAME}.{suffix}") for suffix in SUFFIXES}
    for private in ("masterkey", "key"):
        described = openssl("pkey", "-in", path[private], "-noout", "-text").decode()
        assert "2048 bit" in described
        assert "65537 (0x10001)" in described
    assert openssl("pkey", "-in", path["masterkey"], "-pubout") == Path(path["pub"]).read_bytes()
    assert Path(path["pub"]).read_bytes().startswith(b"-----BEGIN PUBLIC KEY-----\n")
    subject = openssl("x509", "-in", path["crt"], "-noout", "-subject", "-issuer", "-nameopt", "RFC2253").decode()
    assert subject == "".join(f"{who}=CN={NAME} CernVM-FS Release Managers\n" for who in ("subject", "issuer"))
    assert openssl("x509", "-in", path["crt"], "-noout", "-pubkey") == openssl("pkey", "-in", path["key"], "-pubout")
    assert openssl("verify", "-CAfile", path["crt"], path["crt"]).endswith(b": OK\n")


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a" * 30, "a" * 30), ("a" * 31, "a" * 30 + "[...]"), (f"{'a' * 50}.example", "a" * 30 + "[...]")],
    ids=["whole", "cut", "the longest"],
)
def test_a_long_name_is_cut_as_cvmfs_server_cuts_it(made_keys: Path, tmp_path: Path, name: str, shown: str) -> None:
    """A common name has 64 characters at most, a repository's name 60."""
    key = KeyFiles(made_keys, NAME).load().repository
    path = tmp_path / "certificate"
    path.write_bytes(key.certify(RepositoryName(name), now=NOW).encode())
    subject = openssl("x509", "-in", str(path), "-noout", "-subject", "-nameopt", "RFC2253").decode()
    assert subject == f"subject=CN={shown} CernVM-FS Release Managers\n"


def test_openssl_verifies_the_signature_of_a_revision(made_keys: Path, tmp_path: Path) -> None:
    keys = KeyFiles(made_keys, NAME).load()
    (tmp_path / "public").write_bytes(openssl("x509", "-in", str(made_keys / f"{NAME}.crt"), "-noout", "-pubkey"))
    (tmp_path / "signature").write_bytes(keys.signer.sign(b"a hash line"))
    arguments = ("dgst", "-sha1", "-verify", str(tmp_path / "public"), "-signature", str(tmp_path / "signature"))
    assert openssl(*arguments, text=b"a hash line") == b"Verified OK\n"


def test_the_signature_of_a_whitelist_holds_the_text_itself(made_keys: Path) -> None:
    keys = KeyFiles(made_keys, NAME).load()
    assert keys.master is not None
    signature = keys.master.sign(b"a hash line")
    recovered = openssl("pkeyutl", "-verifyrecover", "-pubin", "-inkey", str(made_keys / f"{NAME}.pub"), text=signature)
    assert recovered == b"a hash line"


def test_signatures_of_other_keys_texts_and_forms_are_refused(made_keys: Path) -> None:
    keys = KeyFiles(made_keys, NAME).load()
    assert keys.master is not None
    keys.public.verify(b"text", keys.master.sign(b"text"))
    keys.certificate.verify(b"text", keys.repository.sign(b"text"))
    for wrong in (
        MasterKey.generate().sign(b"text"),
        keys.master.sign(b"texts"),
        RepositoryKey.parse(keys.master.encode()).sign(b"text"),  # with a DigestInfo
        b"",
    ):
        with pytest.raises(SignatureError):
            keys.public.verify(b"text", wrong)
    for wrong in (
        RepositoryKey.generate().sign(b"text"),
        keys.repository.sign(b"texts"),
        MasterKey.parse(keys.repository.encode()).sign(b"text"),  # without one
        b"",
    ):
        with pytest.raises(SignatureError):
            keys.certificate.verify(b"text", wrong)


def test_existing_keys_are_used_and_never_replaced(keys: KeyFiles) -> None:
    before = {path.name: path.read_bytes() for path in keys.key.parent.iterdir()}
    keys.complete(now=NOW)
    assert {path.name: path.read_bytes() for path in keys.key.parent.iterdir()} == before


@pytest.mark.parametrize("there", [("masterkey",), ("masterkey", "pub"), ("masterkey", "pub", "key"), ("pub", "key")])
def test_what_a_killed_process_left_out_is_made(keys: KeyFiles, there: tuple[str, ...]) -> None:
    before = {suffix: (keys.key.parent / f"{NAME}.{suffix}").read_bytes() for suffix in there}
    for suffix in set(SUFFIXES) - set(there):
        (keys.key.parent / f"{NAME}.{suffix}").unlink()
    (keys.key.parent / f".{NAME}.crt.new").write_bytes(b"half a fi")
    keyring = keys.complete(now=NOW)
    assert {suffix: (keys.key.parent / f"{NAME}.{suffix}").read_bytes() for suffix in there} == before
    assert (keyring.master is None) == ("masterkey" not in there)
    assert not (keys.key.parent / f".{NAME}.crt.new").exists()


def test_two_at_a_time_make_one_set_of_keys(tmp_path: Path) -> None:
    files = KeyFiles(tmp_path, NAME)
    with ThreadPoolExecutor(4) as threads:
        rings = [future.result() for future in [threads.submit(files.complete, now=NOW) for _ in range(4)]]
    assert len({ring.certificate.encode() for ring in rings}) == 1
    assert len({ring.public.encode() for ring in rings}) == 1


def test_a_master_key_that_is_kept_elsewhere_is_not_missed(keys: KeyFiles) -> None:
    keys.master.unlink()
    assert keys.load().master is None


@pytest.mark.parametrize(
    ("suffix", "content", "reason"),
    [
        ("masterkey", RepositoryKey.generate().encode(), r"\.pub is not the public half of .*\.masterkey"),
        ("pub", MasterKey.generate().public_key.encode(), r"\.pub is not the public half of .*\.masterkey"),
        ("key", RepositoryKey.generate().encode(), r"\.crt is not the certificate of .*\.key"),
        ("crt", RepositoryKey.generate().certify(NAME, now=NOW).encode(), r"is not the certificate of"),
        ("masterkey", b"\x00", r"masterkey: no private key"),
        ("pub", b"\x00", r"pub: no public key"),
        ("key", b"x" * 70_000, r"key is larger than"),
        ("key", b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", r"key: no private key"),
        ("crt", b"", r"crt: no X.509 certificate"),
    ],
)
def test_keys_that_cannot_be_used_are_named(keys: KeyFiles, suffix: str, content: bytes, reason: str) -> None:
    path = keys.key.parent / f"{NAME}.{suffix}"
    path.unlink()
    path.write_bytes(content)
    path.chmod(0o400)
    with pytest.raises(KeyUnusableError, match=reason) as failure:
        keys.load()
    assert "c2VjcmV0" not in str(failure.value)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("-algorithm", "ed25519"), "not an RSA key"),
        (("-algorithm", "RSA", "-aes128", "-pass", "pass:swordfish"), "encrypted with a password"),
    ],
)
def test_keys_of_other_kinds_are_refused(keys: KeyFiles, arguments: tuple[str, ...], reason: str) -> None:
    keys.key.unlink()
    openssl("genpkey", *arguments, "-out", str(keys.key))
    keys.key.chmod(0o400)
    with pytest.raises(KeyUnusableError, match=reason):
        keys.load()


@pytest.mark.parametrize(
    "damage",
    [
        lambda good: {"p": good.p + 1},
        lambda _: {"q": 0},
        lambda good: {"d": good.d + 2, "dmp1": good.dmp1 + 2},
        lambda good: {"iqmp": good.iqmp ^ 1, "d": 3},
        lambda _: {"e": 3},
        lambda good: {"n": good.p * good.q + 2},
    ],
)
def test_a_key_whose_signatures_are_wrong_is_refused(
    keys: KeyFiles, damage: Callable[[rsa.RSAPrivateNumbers], dict[str, int]]
) -> None:
    key = serialization.load_pem_private_key(keys.key.read_bytes(), password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    good = key.private_numbers()
    public = good.public_numbers
    numbers = {"n": public.n, "e": public.e} | {name: getattr(good, name) for name in _PRIVATE_NUMBERS}
    keys.key.unlink()
    keys.key.write_bytes(_pem([0, *(numbers | damage(good)).values()]))
    keys.key.chmod(0o400)
    with pytest.raises(KeyUnusableError, match="key: no private key in PEM form"):
        keys.load()


def _pem(numbers: Sequence[int]) -> bytes:
    """Write an RSA key in the form of PKCS #1, RFC 8017 A.1.2, whatever its numbers are."""
    integers = b"".join(_der(0x02, number.to_bytes(number.bit_length() // 8 + 1)) for number in numbers)
    text = base64.encodebytes(_der(0x30, integers))
    return b"-----BEGIN RSA PRIVATE KEY-----\n" + text + b"-----END RSA PRIVATE KEY-----\n"


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 0x80 else bytes([0x81, size]) if size < 0x100 else b"\x82" + size.to_bytes(2)
    return bytes([tag]) + length + content


@pytest.mark.parametrize("mode", [0o404, 0o420, 0o644])
def test_a_private_key_that_is_open_to_others_is_refused(keys: KeyFiles, mode: int) -> None:
    keys.key.chmod(mode)
    with pytest.raises(KeyUnusableError, match="chmod 0400"):
        keys.load()


def test_a_certificate_without_its_key_is_not_given_another_key(keys: KeyFiles) -> None:
    keys.key.unlink()
    with pytest.raises(KeyUnusableError, match="restore the key"):
        keys.complete(now=NOW)
    assert not keys.key.exists()


def test_nothing_shows_a_private_key() -> None:
    key = RepositoryKey.generate()
    secret = key.encode().split(b"\n")[1].decode()
    assert secret not in repr(key)
    assert secret not in repr(MasterKey.parse(key.encode()))
    certificate: Certificate = key.certify(NAME, now=NOW)
    assert (
        PublicKey.parse(MasterKey.parse(key.encode()).public_key.encode()) == MasterKey.parse(key.encode()).public_key
    )
    assert certificate.belongs_to(key)
