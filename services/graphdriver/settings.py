"""Settings of the graphdriver, from environment variables with the prefix `GRAPHDRIVER_`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.node.settings import NodeSettings

__all__ = ["GraphDriverSettings", "RepositoryMounts"]


class RepositoryMounts(StrEnum):
    """Who mounts CVMFS repositories."""

    HOST = "host"
    """The machine: they are found below GRAPHDRIVER_CVMFS_ROOT, by autofs or mounted for good."""
    DRIVER = "driver"
    """The driver, with cvmfs2, as long as containers use them."""


class GraphDriverSettings(NodeSettings):
    """Settings of one driver."""

    model_config = SettingsConfigDict(env_prefix="GRAPHDRIVER_")

    socket: Path = Path("/run/docker/plugins/cvmfs.sock")
    """Socket that the engine talks to; the name of the file, without .sock, is the name of the storage driver."""
    state: Path = Path("/var/lib/cvmfs-graphdriver")
    """Directory in which the driver remembers, across restarts, the home that the engine gave it."""
    repository_mounts: RepositoryMounts = RepositoryMounts.HOST
    """Who mounts repositories: the host (found below the CVMFS root) or the driver (with cvmfs2)."""
    cvmfs2: str = "cvmfs2"
    """The CVMFS client, for repositories that the driver mounts."""
    mount_timeout: Annotated[float, Field(gt=0)] = 60
    """Longest time for mounting a repository, in seconds."""
    repository_linger: Annotated[float, Field(ge=0)] = 300
    """How long a repository that nobody uses stays mounted by the driver, in seconds."""
