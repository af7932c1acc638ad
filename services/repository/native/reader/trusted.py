"""The head of a repository, believed only after every signature up to the master key has been found good."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric import rsa

from services.repository.native.reader.errors import UntrustedError
from services.repository.native.reader.letters import (
    Certificate,
    Letter,
    Manifest,
    Whitelist,
    check_manifest_signature,
    check_whitelist_signature,
    master_key,
)
from services.repository.native.reader.objects import read_small_object
from services.repository.native.reader.source import Source, read_file
from services.repository.native.records import MANIFEST, WHITELIST, ObjectKind

__all__ = ["Head", "HeadReader", "Identity", "read_certificate", "read_letter", "utc_now"]

_LETTER_LIMIT: Final = 1 << 20
"""Largest manifest or whitelist that is read, in bytes."""
_CERTIFICATE_LIMIT: Final = 1 << 20
"""Largest certificate that is read, in bytes."""


def utc_now() -> datetime:
    """Return the present time."""
    return datetime.now(UTC)


def read_letter(source: Source, path: str) -> Letter:
    """Fetch a signed text; its signature has not been looked at.

    Raises
    ------
    ObjectMissingError, StorageError
        It cannot be read.
    BrokenRepositoryError
        It is malformed.
    """
    return Letter.parse(read_file(source, path, limit=_LETTER_LIMIT), where=path)


def read_certificate(source: Source, manifest: Manifest) -> Certificate:
    """Fetch the certificate that a manifest names.

    Raises
    ------
    ObjectMissingError, StorageError
        It cannot be read.
    BrokenRepositoryError
        It is malformed.
    """
    name = manifest.certificate
    pem = read_small_object(source, name, ObjectKind.CERTIFICATE, limit=_CERTIFICATE_LIMIT)
    return Certificate.parse(pem, where=name.path(ObjectKind.CERTIFICATE))


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a repository the one that is meant."""

    name: str
    keys: Sequence[rsa.RSAPublicKey]
    """Public master keys, one of which must have signed the whitelist."""

    @classmethod
    def of(cls, name: str, master_keys: Sequence[bytes]) -> Self:
        """Read the keys, PEM.

        Raises
        ------
        UntrustedError
            One is none.
        """
        return cls(name, [master_key(pem) for pem in master_keys])


@dataclass(frozen=True, slots=True)
class Head:
    """What clients find first, verified."""

    manifest: Manifest
    whitelist: Whitelist
    certificate: Certificate


class HeadReader:
    """Reads the head of one repository (blocking).

    Parameters
    ----------
    source
        Where it is.
    identity
        Which it must be.
    clock
        Tells the time.
    """

    def __init__(self, source: Source, identity: Identity, *, clock: Callable[[], datetime]) -> None:
        self._source = source
        self._identity = identity
        self._clock = clock

    def read(self) -> Head:
        """Fetch manifest, certificate and whitelist, and verify them.

        Raises
        ------
        ObjectMissingError, StorageError
            One of them cannot be read.
        BrokenRepositoryError
            One of them is malformed.
        UntrustedError
            A signature does not hold, the whitelist has expired or is for something else.
        """
        letter = read_letter(self._source, WHITELIST)
        check_whitelist_signature(letter, self._identity.keys)
        whitelist = Whitelist.parse(letter)
        letter = read_letter(self._source, MANIFEST)
        manifest = Manifest.parse(letter)
        if manifest.name != self._identity.name:
            raise UntrustedError(f"{MANIFEST} is of the repository {manifest.name}, not of {self._identity.name}")
        certificate = read_certificate(self._source, manifest)
        whitelist.check(name=self._identity.name, certificate=certificate, now=self._clock())
        check_manifest_signature(letter, certificate.key)
        return Head(manifest, whitelist, certificate)
