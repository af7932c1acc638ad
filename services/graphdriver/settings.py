"""Settings of the graphdriver, from environment variables with the prefix `GRAPHDRIVER_`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.common.layout import LayerLayout
from services.common.logs import LogFormat, LogLevel
from services.common.repository_name import RepositoryNameField
from services.common.settings import CommaSeparated, Settings

__all__ = ["GraphDriverSettings", "RepositoryMounts"]


class RepositoryMounts(StrEnum):
    """Who mounts CVMFS repositories."""

    HOST = "host"
    """The machine: they are found below GRAPHDRIVER_CVMFS_ROOT, by autofs or mounted for good."""
    DRIVER = "driver"
    """The driver, with cvmfs2, as long as containers use them."""


class GraphDriverSettings(Settings):
    """Settings of one driver."""

    model_config = SettingsConfigDict(env_prefix="GRAPHDRIVER_")

    socket: Path = Path("/run/docker/plugins/cvmfs.sock")
    """Socket that the engine talks to; the name of the file, without .sock, is the name of the storage driver."""
    state: Path = Path("/var/lib/cvmfs-graphdriver")
    """Directory in which the driver remembers, across restarts, the home that the engine gave it."""
    repositories: CommaSeparated[RepositoryNameField] = ()
    """Repositories that thin images may use, separated by commas; images that name any other one do not run."""
    repository_mounts: RepositoryMounts = RepositoryMounts.HOST
    """Who mounts repositories: the host (found below the CVMFS root) or the driver (with cvmfs2)."""
    cvmfs_root: Path = Path("/cvmfs")
    """Where the host's repositories are."""
    cvmfs2: str = "cvmfs2"
    """The CVMFS client, for repositories that the driver mounts."""
    cvmfs_talk: str = "cvmfs_talk"
    """The client's control program, which has the client look for a new revision while a layer is waited for, where the
    mount itself does not lead to the client's socket; without it, sockets in /var/lib/cvmfs are tried."""
    mount_timeout: Annotated[float, Field(gt=0)] = 60
    """Longest time for mounting a repository, in seconds."""
    repository_linger: Annotated[float, Field(ge=0)] = 300
    """How long a repository that nobody uses stays mounted by the driver, in seconds."""
    lookup_timeout: Annotated[float, Field(gt=0)] = 30
    """Longest time for one look into a repository, in seconds; then its client counts as hung."""
    publish_wait: Annotated[float, Field(ge=0)] = 60
    """How long a container's start waits for layers that are not published yet, in seconds."""
    upload_repository: RepositoryNameField | None = None
    """Repository that commits are published in; by default that of the thin image's topmost layer."""
    layout: LayerLayout = LayerLayout.FLAT
    """Form of the layer paths in descriptors of committed images."""
    copy_interval: Annotated[float, Field(gt=0)] = 30
    """How often the driver looks for what can go, in seconds: local copies of committed layers that are published now,
    and what removed images needed."""
    log_level: LogLevel = LogLevel.INFO
    """The least severe events that are logged."""
    log_format: LogFormat = LogFormat.AUTO
    """How events are logged: json, console, or console at a terminal only (auto)."""
