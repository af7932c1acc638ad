"""Errors of the publisher.

Tree::

    PublisherError
    ├── NotificationError        a request to /v1/events is no notification
    │   └── UnknownDialectError  it is JSON, but in none of the known dialects, or breaks its dialect's form
    ├── TokenRefusedError        services.publisher.handlers.token: a request does not show the token
    ├── JournalError             the journal's file cannot be used
    ├── LayerRefusedError        this layer cannot be published, now or later; its neighbours can
    ├── LayerNotThereError       the store does not hold the announced object (yet)
    └── RepositoryError          the repository failed, whatever the layer
        ├── NoTransactionError        no transaction can be opened now
        │   └── ForeignTransactionError   somebody else has one open
        ├── TransactionLeftOpenError  a transaction could neither be published nor aborted
        └── LayerAdditionError        one layer of a transaction could not be added; the transaction is as before
"""

from services.common.errors import SuiteError

__all__ = [
    "ForeignTransactionError",
    "JournalError",
    "LayerAdditionError",
    "LayerNotThereError",
    "LayerRefusedError",
    "NoTransactionError",
    "NotificationError",
    "PublisherError",
    "RepositoryError",
    "TransactionLeftOpenError",
    "UnknownDialectError",
]


class PublisherError(SuiteError):
    """Base of the publisher's errors."""


class NotificationError(PublisherError):
    """The body is no notification; the text says what is wrong with it."""


class UnknownDialectError(NotificationError):
    """The body is JSON, but in none of the known dialects, or it breaks the form of the one it looks like."""


class JournalError(PublisherError):
    """The journal's file cannot be used; the text names it and says what to do."""


class LayerRefusedError(PublisherError):
    """The layer itself is at fault, so that trying again would end the same.

    Parameters
    ----------
    kind
        One word for the metric that counts refusals.
    """

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class LayerNotThereError(PublisherError):
    """The store does not hold the object: its upload is still under way, it was deleted, or the event was made up."""


class RepositoryError(PublisherError):
    """The repository failed, for a reason that no single layer is known to have caused."""


class NoTransactionError(RepositoryError):
    """No transaction can be opened now, whatever its layers would be."""


class ForeignTransactionError(NoTransactionError):
    """Somebody else has a transaction open; it is waited for, never aborted."""


class TransactionLeftOpenError(RepositoryError):
    """A transaction could neither be published nor aborted; it is the publisher's own and is aborted later."""


class LayerAdditionError(RepositoryError):
    """One layer could not be added to a transaction, which is left as if it had never been tried."""
