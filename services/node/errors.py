"""Errors of the node core.

Tree::

    NodeError
    ├── UnknownLayerError         no layer of that id
    ├── LayerExistsError          a layer of that id is there already
    ├── UnsupportedError          a request that cannot be served, by design
    ├── InterruptedWorkError      what was being done for a layer has been ended, since the layer is removed
    ├── LineageError              a chain of layers is broken or its descriptor is unusable
    ├── MountError                the kernel refused a mount or an unmount
    ├── RepositoryError           a CVMFS repository cannot be used
    │   └── LayerNotPublishedError  the repository works, the layer is not (yet) in it
    └── CommitError               the changes of a container could not be archived or uploaded
"""

from services.common.errors import SuiteError

__all__ = [
    "CommitError",
    "InterruptedWorkError",
    "LayerExistsError",
    "LayerNotPublishedError",
    "LineageError",
    "MountError",
    "NodeError",
    "RepositoryError",
    "UnknownLayerError",
    "UnsupportedError",
]


class NodeError(SuiteError):
    """An operation on a node's layers failed."""


class UnknownLayerError(NodeError):
    """No layer of that id is known."""


class LayerExistsError(NodeError):
    """A layer of that id is there already."""


class UnsupportedError(NodeError):
    """The driver cannot serve the request, by design."""


class InterruptedWorkError(NodeError):
    """What was being done for a layer has been ended, since the layer is removed."""


class LineageError(NodeError):
    """A chain of layers is broken, or the descriptor that decides it is unusable."""


class MountError(NodeError):
    """The kernel refused a mount or an unmount."""


class RepositoryError(NodeError):
    """A CVMFS repository cannot be used."""


class LayerNotPublishedError(RepositoryError):
    """The repository works, the layer is not (yet) in it."""


class CommitError(NodeError):
    """The changes of a container could not be archived or uploaded."""
