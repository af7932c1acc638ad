"""Errors of the plugin's own; those of the layers that it serves are in `services.node.errors`.

Tree::

    GraphDriverError
    ├── BrokenRequestError        the engine broke a request off
    └── NotInitialisedError       an operation came before Init
"""

from services.common.errors import SuiteError

__all__ = ["BrokenRequestError", "GraphDriverError", "NotInitialisedError"]


class GraphDriverError(SuiteError):
    """The plugin failed."""


class BrokenRequestError(GraphDriverError):
    """The engine broke a request off, or its end was lost."""


class NotInitialisedError(GraphDriverError):
    """An operation came before the driver was told its home directory."""
