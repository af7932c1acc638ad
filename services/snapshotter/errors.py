"""Errors of the snapshotter's own; those of the layers below it are in `services.node.errors`.

Each class is an error code of containerd's, since clients act by the code. Tree::

    SnapshotterError
    ├── NotFoundError             nothing has that key or name
    ├── ExistsError               something has that key or name already
    ├── BadRequestError           the request contradicts itself or what is there
    ├── PreconditionError         the snapshot is not in a state in which that can be done
    ├── DeclinedError             somebody else is to do it: containerd asks the next differ
    ├── StateError                what is kept on disk is damaged, or of another version
    ├── DiskFullError             there is no room for what is to be kept
    └── ContentError              containerd's content store or its leases refuse
"""

from services.common.errors import SuiteError

__all__ = [
    "BadRequestError",
    "ContentError",
    "DeclinedError",
    "DiskFullError",
    "ExistsError",
    "NotFoundError",
    "PreconditionError",
    "SnapshotterError",
    "StateError",
]


class SnapshotterError(SuiteError):
    """A request of containerd's cannot be served."""


class NotFoundError(SnapshotterError):
    """Nothing has that key or name."""


class ExistsError(SnapshotterError):
    """Something has that key or name already."""


class BadRequestError(SnapshotterError):
    """The request contradicts itself, or what is there."""


class PreconditionError(SnapshotterError):
    """The snapshot is not in a state in which that can be done."""


class DeclinedError(SnapshotterError):
    """Somebody else is to do it."""


class StateError(SnapshotterError):
    """What is kept on disk is damaged, or of another version."""


class DiskFullError(SnapshotterError):
    """There is no room for what is to be kept."""


class ContentError(SnapshotterError):
    """containerd's content store or its leases refuse."""
