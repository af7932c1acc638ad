"""What can go wrong with a registry.

Tree::

    RegistryError
    ├── RegistryUnavailableError      unreachable, too slow or overloaded, for as long as it was tried
    ├── RegistryRefusedError          the registry refused a request
    │   ├── AuthenticationError       it does not know the user, or wants to know one
    │   ├── AccessDeniedError         the user may not do this
    │   └── ImageMissingError         there is no such image, or no such blob
    ├── InsecureConnectionError       no TLS that can be trusted, or a redirect away from it
    ├── InvalidAnswerError            an answer is not of the form it must have, or larger than its limit
    │   └── DigestMismatchError       content does not have the digest or the size that it is known by
    ├── UnsupportedImageError         an image of a kind that cannot be converted
    │   └── PlatformMissingError      the image is not there for the platform
    └── CredentialsError              the Docker configuration or a credential helper is broken

The texts name the image and the registry; none holds a password, a token, or the query of a URL (signed URLs have their
signature there).
"""

from services.common.errors import SuiteError

__all__ = [
    "AccessDeniedError",
    "AuthenticationError",
    "CredentialsError",
    "DigestMismatchError",
    "ImageMissingError",
    "InsecureConnectionError",
    "InvalidAnswerError",
    "PlatformMissingError",
    "RegistryError",
    "RegistryRefusedError",
    "RegistryUnavailableError",
    "UnsupportedImageError",
]


class RegistryError(SuiteError):
    """The registry failed, refused, or sent something wrong."""


class RegistryUnavailableError(RegistryError):
    """The registry was unreachable, too slow or overloaded; the same request may succeed later.

    Parameters
    ----------
    text
        What was tried and what happened.
    retry_after
        How long the registry asks to wait, in seconds; None where it does not.
    """

    def __init__(self, text: str, *, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class RegistryRefusedError(RegistryError):
    """The registry refused a request."""


class AuthenticationError(RegistryRefusedError):
    """The registry does not know the user, or wants to know one."""


class AccessDeniedError(RegistryRefusedError):
    """The registry does not let this user do this."""


class ImageMissingError(RegistryRefusedError):
    """There is no such image, or no such blob."""


class InsecureConnectionError(RegistryError):
    """There is no TLS connection that can be trusted."""


class InvalidAnswerError(RegistryError):
    """An answer is not of the form it must have, or larger than its limit."""


class DigestMismatchError(InvalidAnswerError):
    """Content does not have the digest or the size that it is known by."""


class UnsupportedImageError(RegistryError):
    """The image is of a kind that cannot be converted."""


class PlatformMissingError(UnsupportedImageError):
    """The image is not there for the platform."""


class CredentialsError(RegistryError):
    """The Docker configuration or a credential helper is broken."""
