"""Public keys that signatures are verified with: ECDSA, RSA and Ed25519, as PEM.

cosign signs the bytes of a payload with SHA-256: ECDSA in DER, RSA with PKCS #1 v1.5; Ed25519 hashes by itself
(sigstore/sigstore, pkg/signature). Keys on P-384 and P-521 may also sign with the hash of their own strength, which is
all that services that keep keys let them do (AWS KMS, `ECDSA_SHA_384` and `ECDSA_SHA_512`).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurve,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from services.converter.model import VerificationKey
from services.converter.provenance.errors import PolicyError

__all__ = ["TrustedKey"]

_CURVES: Final[Mapping[type[EllipticCurve], tuple[HashAlgorithm, ...]]] = {
    SECP256R1: (SHA256(),),
    SECP384R1: (SHA256(), SHA384()),
    SECP521R1: (SHA256(), SHA512()),
}
"""Curves, and the hashes that keys on them sign with."""
_RSA_BITS: Final = range(2048, 8192 + 1)

_AnyKey = EllipticCurvePublicKey | RSAPublicKey | Ed25519PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedKey:
    """A public key that can be used."""

    name: str
    """How the policy calls it."""
    fingerprint: str
    """`sha256:` and the digest of the key's DER form (`SubjectPublicKeyInfo`)."""
    key: _AnyKey

    @classmethod
    def read(cls, given: VerificationKey) -> Self:
        """Read a key.

        Raises
        ------
        PolicyError
            It is no public key, or one that is too weak.
        """
        try:
            key = load_pem_public_key(given.pem)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise PolicyError(
                f"the key {given.name} is no public key: give PEM that begins with BEGIN PUBLIC KEY, as cosign.pub does"
            ) from None
        if isinstance(key, EllipticCurvePublicKey):
            usable = type(key.curve) in _CURVES
        else:
            usable = isinstance(key, Ed25519PublicKey) or (isinstance(key, RSAPublicKey) and key.key_size in _RSA_BITS)
        if not usable or not isinstance(key, _AnyKey):
            raise PolicyError(
                f"the key {given.name} is of a kind that is not trusted: use ECDSA on P-256, P-384 or P-521, "
                f"RSA of {_RSA_BITS[0]} to {_RSA_BITS[-1]} bits, or Ed25519"
            )
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return cls(name=given.name, fingerprint=f"sha256:{hashlib.sha256(der).hexdigest()}", key=key)

    def verifies(self, signature: bytes, payload: bytes) -> bool:
        """Whether a signature of these bytes was made with the private key."""
        if isinstance(self.key, EllipticCurvePublicKey):
            algorithms = map(ECDSA, _CURVES[type(self.key.curve)])
            return any(_verifies(self.key, signature, payload, algorithm) for algorithm in algorithms)
        try:
            match self.key:
                case RSAPublicKey():
                    self.key.verify(signature, payload, PKCS1v15(), SHA256())
                case Ed25519PublicKey():
                    self.key.verify(signature, payload)
        except InvalidSignature:
            return False
        return True


def _verifies(key: EllipticCurvePublicKey, signature: bytes, payload: bytes, algorithm: ECDSA) -> bool:
    try:
        key.verify(signature, payload, algorithm)
    except InvalidSignature:
        return False
    return True
