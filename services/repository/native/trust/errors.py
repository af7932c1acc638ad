"""What can be wrong with what makes clients trust a repository.

Tree::

    NativeError
    └── TrustError
        ├── KeyUnusableError    a key or certificate is missing, malformed, open to others, or of another pair
        ├── LetterError         a signed text does not have its form, or its hash line is of another text
        ├── SignatureError      a signature was made by another key, or of another text
        └── WhitelistError      a whitelist is malformed, of another repository or certificate, or out of date
"""

from services.repository.native.errors import NativeError

__all__ = ["KeyUnusableError", "LetterError", "SignatureError", "TrustError", "WhitelistError"]


class TrustError(NativeError):
    """Clients would not trust the repository, or the publisher cannot make them."""


class KeyUnusableError(TrustError):
    """A key or certificate cannot be used; the text never quotes it."""


class LetterError(TrustError):
    """A signed text does not have its form, or its hash line is of another text."""


class SignatureError(TrustError):
    """A signature was made by another key, or of another text."""


class WhitelistError(TrustError):
    """A whitelist is malformed, of another repository or certificate, or out of date."""
