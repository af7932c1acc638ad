"""Errors of the driver.

Tree::

    GraphDriverError
    ├── BrokenRequestError        the front end broke a request off
    ├── NotInitialisedError       an operation came before Init
    ├── UnknownLayerError         no layer of that id
    ├── LayerExistsError          a layer of that id is there already
    ├── UnsupportedError          a request that the driver cannot serve, by design
    ├── LineageError              a chain of layers is broken or its descriptor is unusable
    ├── MountError                the kernel refused a mount or an unmount
    ├── RepositoryError           a CVMFS repository cannot be used
    │   └── LayerNotPublishedError  the repository works, the layer is not (yet) in it
    └── CommitError               the changes of a container could not be archived or uploaded
"""

from services.common.errors import SuiteError

__all__ = [
    "BrokenRequestError",
    "CommitError",
    "GraphDriverError",
    "LayerExistsError",
    "LayerNotPublishedError",
    "LineageError",
    "MountError",
    "NotInitialisedError",
    "RepositoryError",
    "UnknownLayerError",
    "UnsupportedError",
]


class GraphDriverError(SuiteError):
    """An operation of the driver failed."""


class BrokenRequestError(GraphDriverError):
    """The front end broke a request off, or its end was lost."""


class NotInitialisedError(GraphDriverError):
    """An operation came before the driver was told its home directory."""


class UnknownLayerError(GraphDriverError):
    """No layer of that id is known."""


class LayerExistsError(GraphDriverError):
    """A layer of that id is there already."""


class UnsupportedError(GraphDriverError):
    """The driver cannot serve the request, by design."""


class LineageError(GraphDriverError):
    """A chain of layers is broken, or the descriptor that decides it is unusable."""


class MountError(GraphDriverError):
    """The kernel refused a mount or an unmount."""


class RepositoryError(GraphDriverError):
    """A CVMFS repository cannot be used."""


class LayerNotPublishedError(RepositoryError):
    """The repository works, the layer is not (yet) in it."""


class CommitError(GraphDriverError):
    """The changes of a container could not be archived or uploaded."""
