"""The frame of `thin-repository`: which repository a command is about, how it answers, and its exit statuses."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from services.common.command_line import bundle
from services.common.errors import InvalidValueError, SuiteError
from services.common.repository_name import RepositoryName
from services.repository.native.access import RepositoryAccess
from services.repository.native.collection.collector import Forget
from services.repository.native.errors import RepositoryBusyError, StorageError
from services.repository.native.reader.errors import UntrustedError
from services.repository.native.storage.interface import Storage
from services.repository.native.storage.place import open_storage
from services.repository.native.trust.errors import TrustError
from services.repository.native.trust.keyring import KeyFiles
from services.repository.native.writer.index import ContentIndex

__all__ = ["CODES", "EXIT_CODES", "JSON", "REPOSITORY", "Site", "directory_option", "keys_option", "open_site"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

_USAGE: Final = 2
EXIT_CODES: Final = """\
\b
Exit status:
  0  done
  1  it failed for another reason than those below
  2  an argument or a setting is wrong
  3  check has found problems
  4  the directory or the bucket failed
  5  a key, a signature or the whitelist cannot be used
  6  another process writes to the repository
  130, 143  interrupted by Ctrl-C or SIGTERM
"""

CODES: Final[tuple[tuple[type[SuiteError], int], ...]] = (
    (InvalidValueError, _USAGE),
    (TrustError, 5),
    (UntrustedError, 5),
    (RepositoryBusyError, 6),
    (StorageError, 4),
)
"""Exit statuses of the errors that a command can end with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a repository and its keys are."""

    name: RepositoryName
    storage: Storage
    keys: KeyFiles
    state: Path | None
    """What the publisher keeps of the repository, where that is known."""

    @contextmanager
    def forgetting(self) -> Iterator[Forget]:
        """Give what is to be told of objects before they are deleted: the publisher's index of content.

        Raises
        ------
        StorageError
            The index cannot be used.
        """
        path = None if self.state is None else self.state / "index.sqlite"
        if path is None or not path.exists():
            yield lambda _digests: None
            return
        with closing(ContentIndex(path)) as index:
            yield index.forget

    def access(self) -> RepositoryAccess:
        """Open the repository.

        Raises
        ------
        NativeError
            It cannot be opened.
        """
        return RepositoryAccess.open(name=self.name, storage=self.storage, keys=self.keys)


@contextmanager
def open_site(*, name: str, directory: Path | None, state: Path | None, keys: Path) -> Iterator[Site]:
    """Find the repository that the options of `REPOSITORY` name.

    Raises
    ------
    InvalidValueError
        It cannot have this name, or a setting of its bucket is wrong.
    StorageError
        The state directory cannot be used.
    """
    repository = RepositoryName(name)
    if directory is None and state is None:
        raise click.UsageError(
            "--directory is missing; for a repository in the bucket of REPOSITORY_STORE_ENDPOINT, --state is"
        )
    with open_storage(directory, state=state) as storage:
        yield Site(name=repository, storage=storage, keys=KeyFiles(keys, repository), state=state)


def directory_option(*, exists: bool) -> Callable[[_Command], _Command]:
    """Make the option that names the repository's root, which has to be there already or not."""
    return click.option(
        "--directory",
        type=click.Path(exists=exists, file_okay=False, path_type=Path),
        envvar="THIN_REPOSITORY_DIRECTORY",
        show_envvar=True,
        help="Root of the repository; without it the repository is in the bucket of REPOSITORY_STORE_ENDPOINT.",
    )


def keys_option(what: str) -> Callable[[_Command], _Command]:
    """Make the option that names the directory of keys; `what` says of which."""
    return click.option(
        "--keys",
        type=click.Path(file_okay=False, path_type=Path),
        default="/etc/cvmfs/keys",
        show_default=True,
        envvar="THIN_REPOSITORY_KEYS",
        show_envvar=True,
        help=f"Directory of {what}",
    )


REPOSITORY: Final = bundle(
    click.argument("name"),
    directory_option(exists=False),
    click.option(
        "--state",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="THIN_REPOSITORY_STATE",
        show_envvar=True,
        help="What the publisher keeps of this repository, PUBLISHER_STATE/native/NAME; a bucket needs it, and so do "
        "gc and remove beside a publisher.",
    ),
    keys_option("the keys: NAME.masterkey, NAME.pub, NAME.key, NAME.crt."),
)
"""The argument and options that say which repository; a command passes them to `open_site`."""

JSON: Final = click.option("--json", "as_json", is_flag=True, help="Write one JSON document, for scripts.")
"""The option for scripts."""
