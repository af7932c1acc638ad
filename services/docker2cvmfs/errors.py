"""Root of the converter's exceptions.

Tree::

    Docker2CvmfsError
    ├── RegistryError     services.docker2cvmfs.registry: the registry failed, refused, or sent something wrong
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
