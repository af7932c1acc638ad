"""The head of a repository, believed only after every signature up to the master key has been found good."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa

from services.publisher.repository.native.reader.errors import UntrustedError
from services.publisher.repository.native.reader.letters import (
    Letter,
    Manifest,
    Whitelist,
    certificate_key,
    check_manifest_signature,
    check_whitelist_signature,
    fingerprint,
)
from services.publisher.repository.native.reader.objects import read_small_object
from services.publisher.repository.native.reader.source import Source, read_file
from services.publisher.repository.native.records import MANIFEST, WHITELIST, HashAlgorithm, ObjectKind

__all__ = ["Head", "HeadReader", "utc_now"]

_LETTER_LIMIT: Final = 1 << 20
"""Largest manifest or whitelist that is read, in bytes."""
_CERTIFICATE_LIMIT: Final = 1 << 20
"""Largest certificate that is read, in bytes."""


def utc_now() -> datetime:
    """Return the present time."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Head:
    """What clients find first, verified."""

    manifest: Manifest
    whitelist: Whitelist
    fingerprint: str
    """Of the certificate that signed the manifest, as the whitelist writes it."""


class HeadReader:
    """Reads the head of one repository (blocking).

    Parameters
    ----------
    source
        Where it is.
    name
        The name that it must have.
    keys
        Public master keys, one of which must have signed the whitelist.
    clock
        Tells the time.
    """

    def __init__(
        self, source: Source, *, name: str, keys: Sequence[rsa.RSAPublicKey], clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._source = source
        self._name = name
        self._keys = keys
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
        whitelist = self.whitelist()
        letter = Letter.parse(read_file(self._source, MANIFEST, limit=_LETTER_LIMIT), where=MANIFEST)
        manifest = Manifest.parse(letter)
        if manifest.name != self._name:
            raise UntrustedError(f"{MANIFEST} is of the repository {manifest.name}, not of {self._name}")
        pem = read_small_object(self._source, manifest.certificate, ObjectKind.CERTIFICATE, limit=_CERTIFICATE_LIMIT)
        key, der = certificate_key(pem, where=manifest.certificate.path(ObjectKind.CERTIFICATE))
        # Each line of the whitelist names its own algorithm; the certificate may be listed by any.
        prints = [fingerprint(der, algorithm) for algorithm in HashAlgorithm]
        listed = next((one for one in prints if one in whitelist.fingerprints), prints[0])
        whitelist.check(name=self._name, fingerprint=listed, now=self._clock())
        check_manifest_signature(letter, key)
        return Head(manifest=manifest, whitelist=whitelist, fingerprint=listed)

    def whitelist(self) -> Whitelist:
        """Fetch the whitelist and verify its signature, whatever its dates say."""
        letter = Letter.parse(read_file(self._source, WHITELIST, limit=_LETTER_LIMIT), where=WHITELIST)
        check_whitelist_signature(letter, self._keys)
        return Whitelist.parse(letter)
