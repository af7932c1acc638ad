"""Settings that every front end has, under a prefix of its own."""

from pathlib import Path
from typing import Annotated

from pydantic import ByteSize, Field, ValidationInfo, field_validator

from services.common.layout import LayerLayout
from services.common.listen_address import ListenAddressField
from services.common.logs import LogFormat, LogLevel
from services.common.repository_name import RepositoryNameField
from services.common.settings import CommaSeparated, Settings
from services.node.work_memory import LEAST_MEMORY

__all__ = ["NodeSettings"]


class NodeSettings(Settings):
    """What a front end's settings derive from."""

    repositories: CommaSeparated[RepositoryNameField] = ()
    """Repositories that thin images may use, separated by commas; images that name any other one do not run."""
    cvmfs_root: Path = Path("/cvmfs")
    """Where the host's repositories are."""
    cvmfs_talk: str = "cvmfs_talk"
    """The client's control program, which has the client look for a new revision while a layer is waited for, where the
    mount itself does not lead to the client's socket; without it, sockets in /var/lib/cvmfs are tried."""
    lookup_timeout: Annotated[float, Field(gt=0)] = 30
    """Longest time for one look into a repository, in seconds; then its client counts as hung."""
    publish_wait: Annotated[float, Field(ge=0)] = 60
    """How long a container's start waits for layers that are not published yet, in seconds."""
    upload_repository: RepositoryNameField | None = None
    """Repository that commits are published in, one of those that images may use; by default that of the thin image's
    topmost layer."""
    layout: LayerLayout = LayerLayout.FLAT
    """Form of the layer paths in descriptors of committed images."""
    work_memory: Annotated[ByteSize, Field(ge=LEAST_MEMORY)] = ByteSize(64 << 20)
    """Memory for commits, however many there are at the same time: what it does not suffice for waits in order. What
    the program needs besides, some 90 MB, does not count. At least 32 MiB."""
    copy_interval: Annotated[float, Field(gt=0)] = 30
    """How often it is looked for what can go, in seconds: local copies of committed layers that are published now, and
    what removed images needed."""
    metrics: ListenAddressField | None = None
    """Where `/metrics` and `/healthz` are served, nowhere by default: the absolute path of a socket, which root alone
    can open, or an address and a port, such as 127.0.0.1:9478. Reading needs no token."""
    log_level: LogLevel = LogLevel.INFO
    """The least severe events that are logged."""
    log_format: LogFormat = LogFormat.AUTO
    """How events are logged: json, console, or console at a terminal only (auto)."""

    @field_validator("upload_repository")
    @classmethod
    def _allowed(cls, name: str | None, info: ValidationInfo) -> str | None:
        allowed = info.data.get("repositories")  # not there where it is wrong itself
        if name is None or allowed is None or name in allowed:
            return name
        variable = cls.variable("repositories")
        raise ValueError(
            f"{name} is not among {variable} ({', '.join(allowed) or 'empty'}): what is committed would not run here; "
            "add it there"
        )
