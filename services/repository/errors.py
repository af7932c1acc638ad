"""Errors of repositories, whatever their kind.

Tree::

    RepositoryError                   the repository failed, whatever the layer
    ├── NoTransactionError            no transaction can be opened now
    │   └── ForeignTransactionError   somebody else has one open
    ├── TransactionLeftOpenError      a transaction could neither be published nor aborted
    ├── LayerAdditionError            one layer of a transaction could not be added; the transaction is as before
    ├── LayerRemovalError             one layer could not be taken out; the transaction is as before
    └── ImageAdditionError            the documents of one image could not be changed; the transaction is as before
        └── ImageRefusedError         and trying again would end the same
    LayerRefusedError                 this layer cannot be published, now or later; its neighbours can
"""

from collections.abc import Awaitable, Callable

from services.common.errors import SuiteError

__all__ = [
    "ForeignTransactionError",
    "ImageAdditionError",
    "ImageRefusedError",
    "LayerAdditionError",
    "LayerRefusedError",
    "LayerRemovalError",
    "NoTransactionError",
    "RepositoryError",
    "TransactionLeftOpenError",
]


class LayerRefusedError(SuiteError):
    """The layer itself is at fault, so that trying again would end the same.

    Parameters
    ----------
    kind
        One word for the metric that counts refusals.
    """

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class RepositoryError(SuiteError):
    """The repository failed, for a reason that no single layer is known to have caused."""


class NoTransactionError(RepositoryError):
    """No transaction can be opened now, whatever its layers would be.

    Parameters
    ----------
    is_over
        Tells whether what is in the way has gone, if that can be seen at a glance.
    """

    def __init__(self, message: str, *, is_over: Callable[[], Awaitable[bool]] | None = None) -> None:
        super().__init__(message)
        self.is_over = is_over


class ForeignTransactionError(NoTransactionError):
    """Somebody else has a transaction open; it is waited for, never aborted."""


class TransactionLeftOpenError(RepositoryError):
    """A transaction could neither be published nor aborted; it is the publisher's own and is aborted later."""


class LayerAdditionError(RepositoryError):
    """One layer could not be added to a transaction, which is left as if it had never been tried."""


class ImageAdditionError(RepositoryError):
    """The documents of one image could not be put into a transaction, or taken out, which is left as before."""


class ImageRefusedError(ImageAdditionError):
    """An image cannot be in this repository as it is asked for: trying again would end the same."""


class LayerRemovalError(RepositoryError):
    """One layer could not be taken out in a transaction, which is left as before."""
