"""Errors of the publisher's clients.

Tree::

    PublisherApiError
    ├── PublisherUnreachableError   there is no answer, or none that a publisher gives
    ├── PublisherTokenError         a change was asked for without the token, or with a wrong one
    ├── NotKnownError               the publisher has not heard of the layer or image
    ├── ImagesNotOfferedError       the publisher is an earlier one, which publishes layers only
    ├── PublisherRefusedError       the publisher cannot do what was asked for, or refused a layer
    └── PublisherTimeoutError       it was not done in the time that was given
"""

from services.common.errors import SuiteError

__all__ = [
    "ImagesNotOfferedError",
    "NotKnownError",
    "PublisherApiError",
    "PublisherRefusedError",
    "PublisherTimeoutError",
    "PublisherTokenError",
    "PublisherUnreachableError",
]


class PublisherApiError(SuiteError):
    """Something was asked of a publisher and did not succeed."""


class PublisherUnreachableError(PublisherApiError):
    """There is no answer, or none that a publisher gives."""


class PublisherTokenError(PublisherApiError):
    """A change was asked for without the token, or with a wrong one."""


class NotKnownError(PublisherApiError):
    """The publisher has not heard of the layer or image."""


class ImagesNotOfferedError(PublisherApiError):
    """The publisher is an earlier one, which publishes layers only."""


class PublisherRefusedError(PublisherApiError):
    """The publisher cannot do what was asked for, or refused a layer."""


class PublisherTimeoutError(PublisherApiError):
    """It was not done in the time that was given; the publisher goes on."""
