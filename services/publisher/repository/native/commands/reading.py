"""What the commands that only read have in common: they need no private key, and no directory of this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from services.common.command_line import bundle
from services.common.repository_name import RepositoryName
from services.publisher.repository.native.reader.reader import RepositoryReader
from services.publisher.repository.native.reader.source import HttpSource, Source
from services.publisher.repository.native.storage.directory import DirectoryStorage
from services.publisher.repository.native.trust.errors import KeyUnusableError
from services.publisher.repository.native.trust.keyring import KeyFiles

__all__ = ["READABLE", "ReadableSite", "find_readable", "open_reader"]


@dataclass(frozen=True, slots=True)
class ReadableSite:
    """Where a repository can be read, and the key that says whether to believe it."""

    name: RepositoryName
    source: Source
    public_key: bytes
    """PEM."""


READABLE: Final = bundle(
    click.argument("name"),
    click.option(
        "--directory",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        envvar="THIN_REPOSITORY_DIRECTORY",
        show_envvar=True,
        help="Root of the repository.",
    ),
    click.option("--url", help="Address of the repository at a stratum 0 or 1, instead of a directory."),
    click.option(
        "--keys",
        type=click.Path(file_okay=False, path_type=Path),
        default="/etc/cvmfs/keys",
        show_default=True,
        envvar="THIN_REPOSITORY_KEYS",
        show_envvar=True,
        help="Directory of NAME.pub, the public master key; no other is needed.",
    ),
)
"""The argument and options that say which repository; a command passes them to `find_readable` or `open_reader`."""


def find_readable(*, name: str, directory: Path | None, url: str | None, keys: Path) -> ReadableSite:
    """Find the repository that the options of `READABLE` name.

    Raises
    ------
    InvalidValueError
        It cannot have this name.
    StorageError
        The URL is none.
    KeyUnusableError
        The public key cannot be read.
    """
    repository = RepositoryName(name)
    if url is not None:
        source: Source = HttpSource(url)
    elif directory is not None:
        source = DirectoryStorage(directory)
    else:
        raise click.UsageError("give --directory or --url: where the repository is")
    path = KeyFiles(keys, repository).public
    try:
        return ReadableSite(repository, source, path.read_bytes())
    except OSError as error:
        raise KeyUnusableError(f"{path} cannot be read: {error.strerror}") from error


@contextmanager
def open_reader(*, name: str, directory: Path | None, url: str | None, keys: Path) -> Iterator[RepositoryReader]:
    """Open the repository that the options of `READABLE` name.

    Raises
    ------
    InvalidValueError, StorageError, KeyUnusableError
        As `find_readable`.
    UntrustedError
        The public key is none.
    """
    site = find_readable(name=name, directory=directory, url=url, keys=keys)
    with RepositoryReader(site.source, name=site.name, master_keys=[site.public_key]) as reader:
        yield reader
