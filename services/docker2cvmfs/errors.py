"""Errors of the converter's own; those of registries are in `services.registry.errors`.

Tree::

    Docker2CvmfsError
    ├── EngineError       a Docker engine did not take the image
    └── OutputError       a file could not be written
"""

from services.common.errors import SuiteError

__all__ = ["Docker2CvmfsError", "EngineError", "OutputError"]


class Docker2CvmfsError(SuiteError):
    """A conversion failed."""


class EngineError(Docker2CvmfsError):
    """A Docker engine did not take the image."""


class OutputError(Docker2CvmfsError):
    """A file could not be written."""
