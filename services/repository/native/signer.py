"""All that the writer knows about keys."""

from typing import Protocol

__all__ = ["Signer"]


class Signer(Protocol):
    """The repository key and its certificate."""

    @property
    def certificate(self) -> bytes:
        """The X.509 certificate, PEM; it is published, compressed, as an object."""

    def sign(self, hash_line: bytes) -> bytes:
        """Sign a manifest's hash line: RSA PKCS#1 v1.5 with SHA-1 and its DigestInfo.

        Raises
        ------
        NativeError
            The key cannot be used.
        """
