"""Keys that sign: the master key signs the whitelist, the repository key signs every revision.

Nothing here shows what a private key holds: not in `repr`, not in an error.
"""

from datetime import datetime, timedelta
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils
from cryptography.x509.oid import NameOID

from services.common.repository_name import RepositoryName
from services.repository.native.trust.errors import KeyUnusableError, SignatureError

__all__ = ["Certificate", "MasterKey", "PublicKey", "RepositoryKey"]

_BITS: Final = 2048
"""What `cvmfs_server` makes; clients verify every size."""
_EXPONENT: Final = 65537
_SHOWN_NAME: Final = 30
"""Most characters of a repository's name in its certificate, whose names have a limit that `cvmfs_server` keeps so."""
_TRIAL: Final = b"a trial"
"""What a private key signs when it is read."""
_VALIDITY: Final = timedelta(days=3650)
"""Clients take the certificate for a holder of a key and do not look at its dates; the whitelist is what expires."""


class PublicKey:
    """The public half of a master key: what clients trust.

    Parameters
    ----------
    key
        An RSA key.
    """

    def __init__(self, key: rsa.RSAPublicKey) -> None:
        self._key = key

    @classmethod
    def parse(cls, pem: bytes) -> Self:
        """Read a PEM file.

        Raises
        ------
        KeyUnusableError
            It holds no public RSA key.
        """
        try:
            key = serialization.load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm):
            raise KeyUnusableError("no public key in PEM form") from None
        if not isinstance(key, rsa.RSAPublicKey):
            raise KeyUnusableError("not an RSA key")
        return cls(key)

    def encode(self) -> bytes:
        """Write it as a PEM file, SubjectPublicKeyInfo."""
        return self._key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def verify(self, text: bytes, signature: bytes) -> None:
        """Check the signature of a whitelist: PKCS #1 v1.5, the text itself where a DigestInfo usually is.

        Raises
        ------
        SignatureError
            Another key made it, or it is of another text.
        """
        try:
            signed = self._key.recover_data_from_signature(signature, padding.PKCS1v15(), None)
        except InvalidSignature:
            signed = None
        if signed != text:
            raise SignatureError("it is not signed by the master key that belongs to the public key")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self.encode())


class _PrivateKey:
    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> Self:
        """Make a new one."""
        return cls(rsa.generate_private_key(_EXPONENT, _BITS))

    @classmethod
    def parse(cls, pem: bytes) -> Self:
        """Read a PEM file.

        Raises
        ------
        KeyUnusableError
            It holds no private RSA key, an encrypted one, or one whose signatures are wrong.
        """
        # What the library says is not passed on: it may quote what it read. Its own validation looks whether the
        # factors are primes, which takes fifty times as long as a signature, which shows all that matters.
        try:
            key = serialization.load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
        except TypeError:
            raise KeyUnusableError("the key is encrypted with a password; store it without one, mode 0400") from None
        except (ValueError, UnsupportedAlgorithm):
            raise KeyUnusableError("no private key in PEM form") from None
        if not isinstance(key, rsa.RSAPrivateKey):
            raise KeyUnusableError("not an RSA key")
        if not _signs(key):
            raise KeyUnusableError("no private key in PEM form that signs: it is damaged")
        return cls(key)

    def encode(self) -> bytes:
        """Write it as a PEM file, PKCS #8, not encrypted."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def _signs(key: rsa.RSAPrivateKey) -> bool:
    """Say whether the public half verifies what the private one signs."""
    how = (padding.PKCS1v15(), hashes.SHA256())
    try:
        key.public_key().verify(key.sign(_TRIAL, *how), _TRIAL, *how)
    except (InternalError, InvalidSignature, ValueError):
        return False
    return True


class MasterKey(_PrivateKey):
    """Signs whitelists.

    Parameters
    ----------
    key
        An RSA key.
    """

    @property
    def public_key(self) -> PublicKey:
        """What clients verify its signatures with."""
        return PublicKey(self._key.public_key())

    def sign(self, text: bytes) -> bytes:
        """Sign a whitelist's hash line: PKCS #1 v1.5 without a DigestInfo, as clients insist on."""
        return self._key.sign(text, padding.PKCS1v15(), utils.NoDigestInfo())


class Certificate:
    """The public half of a repository key, in an X.509 certificate that the whitelist names by its fingerprint.

    Parameters
    ----------
    certificate
        The certificate.
    """

    def __init__(self, certificate: x509.Certificate) -> None:
        key = certificate.public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            raise KeyUnusableError("the certificate's key is not an RSA key")
        self._certificate = certificate
        self._key = key

    @classmethod
    def parse(cls, pem: bytes) -> Self:
        """Read a PEM file.

        Raises
        ------
        KeyUnusableError
            It holds no certificate of an RSA key.
        """
        try:
            return cls(x509.load_pem_x509_certificate(pem))
        except ValueError:
            raise KeyUnusableError("no X.509 certificate in PEM form") from None

    def encode(self) -> bytes:
        """Write it as a PEM file, which is also the content of the repository's certificate object."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def der(self) -> bytes:
        """The form that fingerprints are taken of."""
        return self._certificate.public_bytes(serialization.Encoding.DER)

    def verify(self, text: bytes, signature: bytes) -> None:
        """Check the signature of a manifest: PKCS #1 v1.5 with SHA-1.

        Raises
        ------
        SignatureError
            Another key made it, or it is of another text.
        """
        try:
            self._key.verify(signature, text, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303 - the format's
        except InvalidSignature:
            raise SignatureError("it is not signed by the key of the repository's certificate") from None

    def belongs_to(self, key: "RepositoryKey") -> bool:
        """Whether it is the certificate of this key."""
        return self._key == key.public


class RepositoryKey(_PrivateKey):
    """Signs revisions.

    Parameters
    ----------
    key
        An RSA key.
    """

    @property
    def public(self) -> rsa.RSAPublicKey:
        """Its public half."""
        return self._key.public_key()

    def sign(self, text: bytes) -> bytes:
        """Sign a manifest's hash line: PKCS #1 v1.5 with SHA-1; clients refuse every other digest."""
        return self._key.sign(text, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303 - the format's

    def certify(self, repository: RepositoryName, *, now: datetime) -> Certificate:
        """Make a self-signed certificate of the form that `cvmfs_server` gives it."""
        shown = repository if len(repository) <= _SHOWN_NAME else f"{repository[:_SHOWN_NAME]}[...]"
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{shown} CernVM-FS Release Managers")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + _VALIDITY)
            .sign(self._key, hashes.SHA256())
        )
        return Certificate(certificate)
