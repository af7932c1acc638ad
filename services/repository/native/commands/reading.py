"""What the commands that only read have in common: they need no private key, and no directory of this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from services.common.command_line import bundle
from services.common.repository_name import RepositoryName
from services.repository.native.commands.frame import directory_option, keys_option
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.reader.source import HttpSource, Source
from services.repository.native.storage.place import open_storage
from services.repository.native.trust.errors import KeyUnusableError
from services.repository.native.trust.keyring import KeyFiles

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
    directory_option(exists=True),
    click.option("--url", help="Address of the repository at a stratum 0 or 1: read it there."),
    keys_option("NAME.pub, the public master key; no other is needed."),
)
"""The argument and options that say which repository; a command passes them to `find_readable` or `open_reader`."""


@contextmanager
def find_readable(*, name: str, directory: Path | None, url: str | None, keys: Path) -> Iterator[ReadableSite]:
    """Find the repository that the options of `READABLE` name.

    Raises
    ------
    InvalidValueError
        It cannot have this name, or a setting of its bucket is wrong.
    StorageError
        The URL is none.
    KeyUnusableError
        The public key cannot be read.
    """
    repository = RepositoryName(name)
    path = KeyFiles(keys, repository).public
    try:
        public_key = path.read_bytes()
    except OSError as error:
        raise KeyUnusableError(f"{path} cannot be read: {error.strerror}") from error
    if url is not None:
        yield ReadableSite(repository, HttpSource(url), public_key)
        return
    with open_storage(directory, state=None) as storage:
        yield ReadableSite(repository, storage, public_key)


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
    with (
        find_readable(name=name, directory=directory, url=url, keys=keys) as site,
        RepositoryReader(site.source, name=site.name, master_keys=[site.public_key]) as reader,
    ):
        yield reader
