"""Why an image does not satisfy a signature policy.

Tree::

    ProvenanceError
    ├── SignatureMissingError      it is not signed, as far as can be found
    ├── UntrustedSignatureError    it is signed, by none of the policy's keys
    ├── ForeignSignatureError      a good signature, but for an image of another repository or of another digest
    ├── DamagedSignatureError      what is there cannot be read, or has been changed
    ├── PolicyError                the policy itself cannot be used: a key is none, or a wish names no such policy
    └── ProvenanceUnknownError     the registry failed, so nobody knows; the same question may be answered later
"""

from typing import ClassVar

from services.common.errors import SuiteError

__all__ = [
    "DamagedSignatureError",
    "ForeignSignatureError",
    "PolicyError",
    "ProvenanceError",
    "ProvenanceUnknownError",
    "SignatureMissingError",
    "UntrustedSignatureError",
]


class ProvenanceError(SuiteError):
    """An image does not satisfy a signature policy, and is not to be used."""

    word: ClassVar[str]
    """What metrics count it by."""
    retryable: ClassVar[bool] = False
    """Whether the cause may pass although nobody does anything about it."""


class SignatureMissingError(ProvenanceError):
    """The image is not signed, as far as can be found."""

    word = "unsigned"


class UntrustedSignatureError(ProvenanceError):
    """The image is signed, by none of the policy's keys."""

    word = "untrusted"


class ForeignSignatureError(ProvenanceError):
    """There is a good signature, but for an image of another repository or of another digest."""

    word = "foreign"


class DamagedSignatureError(ProvenanceError):
    """The signatures cannot be read, or have been changed."""

    word = "damaged"


class PolicyError(ProvenanceError):
    """The policy itself cannot be used."""

    word = "policy"


class ProvenanceUnknownError(ProvenanceError):
    """The registry failed, so that nobody knows."""

    word = "registry"
    retryable = True
