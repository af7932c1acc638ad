"""Root of the converter's exceptions.

Tree::

    Docker2CvmfsError
    └── RegistryError     services.docker2cvmfs.registry: the registry failed, refused, or sent something wrong
"""

from services.common.errors import SuiteError

__all__ = ["Docker2CvmfsError"]


class Docker2CvmfsError(SuiteError):
    """A conversion failed."""
