"""Signed texts: the manifest, and the whitelist that says who may sign it.

Both are a *letter*: lines, the line `--`, a line with the hash of everything before that line, and a signature of the
hash line. The manifest's signature is PKCS #1 v1.5 with SHA-1; the whitelist's is of the same kind without the
algorithm's name in the block, so that its payload is the hash line itself.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from services.common.errors import InvalidValueError
from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.reader.errors import UntrustedError
from services.repository.native.records import (
    MANIFEST,
    ROOT_PATH_HASH,
    WHITELIST,
    ContentHash,
    HashAlgorithm,
)

__all__ = [
    "Certificate",
    "Letter",
    "Manifest",
    "Whitelist",
    "check_manifest_signature",
    "check_whitelist_signature",
    "master_key",
]

_SEPARATOR: Final = b"--\n"
_TIME: Final = "%Y%m%d%H%M%S"
_TIME_DIGITS: Final = re.compile(r"[0-9]{14}")
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_FINGERPRINT: Final = re.compile(r"(?:[0-9A-F]{2}:){19}[0-9A-F]{2}(?:-RMD160|-SHAKE128)?")


@dataclass(frozen=True, slots=True)
class Letter:
    """A signed text, its hash line compared, its signature not."""

    lines: tuple[str, ...]
    hash_line: bytes
    signature: bytes

    @classmethod
    def parse(cls, content: bytes, *, where: str) -> Self:
        """Take a letter apart.

        Raises
        ------
        BrokenRepositoryError
            It has not the form, or its hash line is that of another text.
        """
        end = 0 if content.startswith(_SEPARATOR) else content.find(b"\n" + _SEPARATOR) + 1
        if end == 0:
            raise BrokenRepositoryError(f"{where} has no line -- before a signature")
        body, rest = content[:end], content[end + len(_SEPARATOR) :]
        hash_line, separator, signature = rest.partition(b"\n")
        try:
            lines = tuple(body.decode().split("\n")[:-1])
            claimed = ContentHash.parse(hash_line.decode("ascii"))
        except (UnicodeDecodeError, InvalidValueError):
            raise BrokenRepositoryError(f"{where} is no text followed by its hash") from None
        if not separator or not signature:
            raise BrokenRepositoryError(f"{where} has no signature")
        if ContentHash.of(body, claimed.algorithm) != claimed:
            raise BrokenRepositoryError(
                f"{where} has been changed: its text has not the hash that it states, {claimed}"
            )
        return cls(lines=lines, hash_line=hash_line, signature=signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What the manifest says."""

    name: str
    """Of the repository."""
    revision: int
    root: ContentHash
    """The root catalog."""
    root_size: int | None
    """Of the uncompressed root catalog, in bytes."""
    certificate: ContentHash
    ttl: int
    """Seconds."""
    published: int | None
    """Unix seconds."""
    history: ContentHash | None
    """The tag database."""
    meta: ContentHash | None
    """The meta information."""
    reflog: ContentHash | None
    """Hash of the reference log."""
    collectable: bool
    """Whether garbage may be collected."""
    linked: bool
    """Whether root catalog and certificate have links of their own at the top, which clients may ask for."""

    @classmethod
    def parse(cls, letter: Letter) -> Self:
        """Read the fields.

        Raises
        ------
        BrokenRepositoryError
            One that clients need is missing, twice there, or malformed.
        """
        fields = _Fields(letter.lines)
        root_path = fields.text("R")
        if root_path != ROOT_PATH_HASH:
            raise BrokenRepositoryError(f"{MANIFEST}: field R is {root_path!r} instead of {ROOT_PATH_HASH}")
        return cls(
            name=fields.text("N"),
            revision=fields.number("S"),
            root=fields.hash("C"),
            root_size=fields.optional_number("B"),
            certificate=fields.hash("X"),
            ttl=fields.number("D"),
            published=fields.optional_number("T"),
            history=fields.optional_hash("H"),
            meta=fields.optional_hash("M"),
            reflog=fields.optional_hash("Y"),
            collectable=fields.optional_text("G") == "yes",
            linked=fields.optional_text("A") == "yes",
        )


class _Fields:
    """The one-letter fields of a manifest; letters that nobody knows are passed over."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._values: dict[str, str] = {}
        for line in lines:
            if line[:1] in self._values and line[:1] != "Z":
                raise BrokenRepositoryError(f"{MANIFEST}: field {line[:1]} is there twice")
            self._values[line[:1]] = line[1:]

    def optional_text(self, letter: str) -> str | None:
        return self._values.get(letter)

    def text(self, letter: str) -> str:
        value = self._values.get(letter)
        if value is None:
            raise BrokenRepositoryError(f"{MANIFEST}: field {letter} is missing")
        return value

    def number(self, letter: str) -> int:
        value = self.text(letter)
        if not _NUMBER.fullmatch(value):
            raise BrokenRepositoryError(f"{MANIFEST}: field {letter} is no number: {value[:80]!r}")
        return int(value)

    def optional_number(self, letter: str) -> int | None:
        return self.number(letter) if letter in self._values else None

    def hash(self, letter: str) -> ContentHash:
        value = self.text(letter)
        try:
            return ContentHash.parse(value)
        except InvalidValueError:
            raise BrokenRepositoryError(f"{MANIFEST}: field {letter} is no hash: {value[:80]!r}") from None

    def optional_hash(self, letter: str) -> ContentHash | None:
        return self.hash(letter) if letter in self._values else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Whitelist:
    """What the whitelist says."""

    name: str
    """Of the repository."""
    issued: datetime
    expires: datetime
    """Clients refuse it from the beginning of this hour."""
    fingerprints: tuple[str, ...]
    """Of the certificates that may sign manifests."""

    @classmethod
    def parse(cls, letter: Letter) -> Self:
        """Read the lines.

        Raises
        ------
        BrokenRepositoryError
            They have not the form.
        UntrustedError
            They ask for another kind of signature.
        """
        if len(letter.lines) < 3:  # noqa: PLR2004 - two times and a name
            raise BrokenRepositoryError(f"{WHITELIST} has no times and name")
        issued, expires, name, *rest = letter.lines
        if not expires.startswith("E") or not name.startswith("N"):
            raise BrokenRepositoryError(f"{WHITELIST} has no line E with its end and N with the repository's name")
        if rest and rest[0].startswith("V"):
            raise UntrustedError(f"{WHITELIST} is verified by {rest[0][1:80]!r}, which is not supported here")
        prints = tuple(re.split(r"[ \t#]", line, maxsplit=1)[0] for line in rest)
        if wrong := next((line for line in prints if not _FINGERPRINT.fullmatch(line)), None):
            raise BrokenRepositoryError(f"{WHITELIST}: no fingerprint of a certificate: {wrong[:80]!r}")
        return cls(name=name[1:], issued=_time(issued), expires=_time(expires[1:]), fingerprints=prints)

    def check(self, *, name: str, certificate: "Certificate", now: datetime) -> None:
        """Make sure that it lets a certificate sign for a repository today.

        Raises
        ------
        UntrustedError
            It does not.
        """
        if self.name != name:
            raise UntrustedError(f"{WHITELIST} is for the repository {self.name}, not for {name}")
        if now >= self.expires.replace(minute=0, second=0):
            raise UntrustedError(f"{WHITELIST} has expired at {self.expires:%Y-%m-%d %H}:00 UTC")
        # Each line names its own algorithm.
        prints = [certificate.fingerprint(algorithm) for algorithm in HashAlgorithm]
        if not set(prints) & set(self.fingerprints):
            raise UntrustedError(f"{WHITELIST} does not list the certificate {prints[0]}")


def _time(text: str) -> datetime:
    try:
        if _TIME_DIGITS.fullmatch(text):
            return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        pass
    raise BrokenRepositoryError(f"{WHITELIST}: no time of 14 digits: {text[:80]!r}")


def master_key(pem: bytes) -> rsa.RSAPublicKey:
    """Read a public master key.

    Raises
    ------
    UntrustedError
        It is none.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise UntrustedError("the public master key is no PEM file of a public key") from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise UntrustedError("the public master key is no RSA key")
    return key


@dataclass(frozen=True, slots=True)
class Certificate:
    """What signs manifests. It only holds a key: clients look neither at its dates nor at who has signed it."""

    key: rsa.RSAPublicKey
    der: bytes

    @classmethod
    def parse(cls, pem: bytes, *, where: str) -> Self:
        """Read a PEM file.

        Raises
        ------
        BrokenRepositoryError
            It holds no certificate, or none of an RSA key.
        """
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            key = certificate.public_key()
        except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
            raise BrokenRepositoryError(f"{where} is no PEM certificate") from None
        if not isinstance(key, rsa.RSAPublicKey):
            raise BrokenRepositoryError(f"{where} is no certificate of an RSA key")
        return cls(key, certificate.public_bytes(serialization.Encoding.DER))

    def fingerprint(self, algorithm: HashAlgorithm) -> str:
        """Return the fingerprint as whitelists write it."""
        return algorithm.digest(self.der).hex(":").upper() + algorithm.suffix.upper()


def check_manifest_signature(letter: Letter, key: rsa.RSAPublicKey) -> None:
    """Make sure that the certificate's key has signed a manifest.

    Raises
    ------
    UntrustedError
        It has not.
    """
    try:
        key.verify(letter.signature, letter.hash_line, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303 - the format's
    except InvalidSignature:
        raise UntrustedError(f"{MANIFEST} is not signed by the certificate that it names") from None


def check_whitelist_signature(letter: Letter, keys: Sequence[rsa.RSAPublicKey]) -> None:
    """Make sure that one of the master keys has signed a whitelist.

    Raises
    ------
    UntrustedError
        None has.
    """
    for key in keys:
        try:
            if key.recover_data_from_signature(letter.signature, padding.PKCS1v15(), None) == letter.hash_line:
                return
        except InvalidSignature:
            continue
    raise UntrustedError(f"{WHITELIST} is signed by none of the given public master keys")
