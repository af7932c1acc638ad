"""Where `cvmfs_server` keeps a repository, and how it is configured there."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.common.digest import Digest
from services.common.layout import layer_tree
from services.common.repository_name import RepositoryName
from services.repository.errors import RepositoryError

__all__ = ["Configuration", "Place"]

_STRATUM_0: Final = "stratum0"
_LOCAL: Final = "local"
_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?(CVMFS_\w+)=(.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What a repository's `server.conf` says."""

    keeps_xattrs: bool | None
    """Whether extended attributes are kept; None where it does not say."""
    storage: Path | None
    """Directory of the storage; None where it is on another machine."""


class Place:
    """The directories and files of one repository.

    Parameters
    ----------
    name
        Its name.
    mount
        Directory that repositories are mounted in for writing, `/cvmfs`.
    spool
        Directory of the program's own state, `/var/spool/cvmfs`.
    configuration
        Directory of the repositories' configuration, `/etc/cvmfs/repositories.d`.
    """

    def __init__(self, *, name: RepositoryName, mount: Path, spool: Path, configuration: Path) -> None:
        self.name = name
        self.area = mount / name
        """The union of what is published and what a transaction has changed."""
        self.published = spool / name / "rdonly"
        self.scratch = spool / name / "scratch" / "current"
        """What a transaction has changed."""
        self.flag = spool / name / "in_transaction.lock"
        self.publishing_lock = spool / name / "is_publishing.lock"
        self.spool = spool
        self._configuration = configuration / name / "server.conf"

    @property
    def longest_prefix(self) -> int:
        """Bytes that come before the paths of a layer, at most, wherever a publish looks at it."""
        home = len(f"/{layer_tree(Digest('0' * 64))}/")
        return max(len(os.fsencode(path)) for path in (self.area, self.published, self.scratch)) + home

    def configuration(self) -> Configuration:
        """Read what the program reads at every call; blocking.

        Raises
        ------
        RepositoryError
            There is no such repository, or it is not published from here.
        """
        try:
            text = self._configuration.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            raise RepositoryError(
                f"cvmfs_server knows no repository {self.name}: there is no {self._configuration}"
            ) from None
        except OSError as error:
            raise RepositoryError(f"{self._configuration} cannot be read: {error.strerror}") from error
        values = dict(filter(None, map(_assignment, text.splitlines())))
        kind = values.get("CVMFS_REPOSITORY_TYPE", "")
        if kind != _STRATUM_0:
            raise RepositoryError(
                f"repository {self.name} is not published from here: {self._configuration} says "
                f"CVMFS_REPOSITORY_TYPE={kind}"
            )
        keeps = values.get("CVMFS_INCLUDE_XATTRS")
        storage = values.get("CVMFS_UPSTREAM_STORAGE", "").split(",")
        return Configuration(
            keeps_xattrs=None if keeps is None else keeps == "true",
            storage=Path(storage[-1]) if storage[0] == _LOCAL else None,
        )


def _assignment(line: str) -> tuple[str, str] | None:
    match = _ASSIGNMENT.fullmatch(line)
    if match is None:
        return None
    value = match[2].strip()
    quote = value[:1]
    if quote in ("'", '"') and quote in value[1:]:
        return match[1], value[1 : value.index(quote, 1)]
    return match[1], value.split("#")[0].split(";")[0].strip()
