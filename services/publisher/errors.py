"""Errors of the publisher's own.

Those of the repository that it publishes to, and of layers that cannot be published, are in
`services.repository.errors`.

Tree::

    PublisherError
    ├── NotificationError        a request to /v1/events is no notification
    │   └── UnknownDialectError  it is JSON, but in none of the known dialects, or breaks its dialect's form
    ├── TokenRefusedError        services.publisher.handlers.token: a request does not show the token
    ├── RequestRefusedError      services.publisher.handlers.refusal: a request is not taken
    │   └── NameRefusedError     services.publisher.handlers.access: it is about an image that is not the project's
    ├── JournalError             the journal's database cannot be used
    │   └── LeaseLostError       others count this publisher as gone
    ├── ClaimLostError           what this publisher had claimed is another one's by now
    ├── MigrationNeededError     services.publisher.migrate: the journal has an older version
    └── LayerNotThereError       the store does not hold the announced object (yet)
"""

from services.common.errors import SuiteError

__all__ = [
    "ClaimLostError",
    "JournalError",
    "LayerNotThereError",
    "LeaseLostError",
    "NotificationError",
    "PublisherError",
    "UnknownDialectError",
]


class PublisherError(SuiteError):
    """Base of the publisher's errors."""


class NotificationError(PublisherError):
    """The body is no notification; the text says what is wrong with it."""


class UnknownDialectError(NotificationError):
    """The body is JSON, but in none of the known dialects, or it breaks the form of the one it looks like."""


class JournalError(PublisherError):
    """The journal's database cannot be used; the text names it and says what to do."""


class LeaseLostError(JournalError):
    """The publisher has not renewed its lease in time, and others go on with its work: it must be started again."""


class ClaimLostError(PublisherError):
    """What this publisher had claimed is another one's by now: it is dropped here, and nothing is recorded of it."""


class LayerNotThereError(PublisherError):
    """The store does not hold the object: its upload is still under way, it was deleted, or the event was made up."""
