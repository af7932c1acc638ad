"""The files of a repository's keys.

They have the names that `cvmfs_server` gives them, so that either can take over the other's::

    NAME.masterkey   RSA key that signs the whitelist; may be kept elsewhere          0400
    NAME.pub         its public half: what clients are given as CVMFS_PUBLIC_KEY      0444
    NAME.key         RSA key that signs every revision                                0400
    NAME.crt         its self-signed X.509 certificate, which the whitelist names     0444

A file is written under another name, brought to the disk and renamed; one that is there is never replaced. Making keys
completes whatever is there, so that it can be killed and repeated.
"""

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar

from services.common.durable import sync_directory
from services.common.repository_name import RepositoryName
from services.repository.native.trust.errors import KeyUnusableError
from services.repository.native.trust.keys import Certificate, MasterKey, PublicKey, RepositoryKey

__all__ = ["KeyFiles", "Keyring", "RepositorySigner"]

_Parsed = TypeVar("_Parsed")

_LIMIT: Final = 64 << 10
"""Largest file that is read, in bytes."""
_PRIVATE: Final = 0o400
_PUBLIC: Final = 0o444
_TOO_OPEN: Final = stat.S_IWGRP | stat.S_IRWXO
"""A group may read a private key, as secrets of orchestrators are mounted; nobody else may, and none may write it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """Keys that belong together."""

    master: MasterKey | None
    """None if it is kept elsewhere."""
    public: PublicKey
    repository: RepositoryKey
    certificate: Certificate

    @property
    def signer(self) -> "RepositorySigner":
        """What signs revisions."""
        return RepositorySigner(self.repository, self.certificate)


class RepositorySigner:
    """Signs revisions for the writer.

    Parameters
    ----------
    key
        The repository key.
    certificate
        Its certificate.
    """

    def __init__(self, key: RepositoryKey, certificate: Certificate) -> None:
        self._key = key
        self.certificate: Final = certificate.encode()

    def sign(self, hash_line: bytes) -> bytes:
        """Sign a manifest's hash line."""
        return self._key.sign(hash_line)


class KeyFiles:
    """The key files of one repository (blocking).

    Parameters
    ----------
    directory
        Where they are, `/etc/cvmfs/keys` for `cvmfs_server`.
    repository
        Name of the repository.
    """

    def __init__(self, directory: Path, repository: RepositoryName) -> None:
        self._directory = directory
        self._repository = repository
        self.master = directory / f"{repository}.masterkey"
        self.public = directory / f"{repository}.pub"
        self.key = directory / f"{repository}.key"
        self.certificate = directory / f"{repository}.crt"

    def load(self) -> Keyring:
        """Read the keys and make sure that they belong together.

        Raises
        ------
        KeyUnusableError
            One is missing, malformed, open to others or of another pair.
        """
        master = _read(self.master, MasterKey.parse, private=True) if self.has_master else None
        public = self.load_public()
        key = _read(self.key, RepositoryKey.parse, private=True)
        certificate = self.load_certificate()
        if master is not None and master.public_key != public:
            raise KeyUnusableError(f"{self.public} is not the public half of {self.master}")
        if not certificate.belongs_to(key):
            raise KeyUnusableError(f"{self.certificate} is not the certificate of {self.key}")
        return Keyring(master=master, public=public, repository=key, certificate=certificate)

    def load_public(self) -> PublicKey:
        """Read what clients trust; errors as `load`, which takes longer since it tries the private keys."""
        return _read(self.public, PublicKey.parse)

    def load_certificate(self) -> Certificate:
        """Read the certificate; errors as `load`."""
        return _read(self.certificate, Certificate.parse)

    @property
    def has_master(self) -> bool:
        """Whether the master key is here."""
        return os.path.lexists(self.master)

    def load_master(self) -> tuple[MasterKey, Certificate]:
        """Read what signs a whitelist, and the certificate that it is to name; errors as `load`."""
        return _read(self.master, MasterKey.parse, private=True), self.load_certificate()

    def complete(self, *, now: datetime) -> Keyring:
        """Make the keys that are missing, and read them all.

        A public master key whose private half is not here says that this is kept elsewhere.

        Parameters
        ----------
        now
            Date of a certificate that is made.

        Raises
        ------
        KeyUnusableError
            As `load`; or there is a certificate without its key.
        OSError
            A file cannot be written.
        """
        self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        with self._alone():
            if not os.path.lexists(self.public):
                self._complete_master()
            self._complete_key(now)
        return self.load()

    def _complete_master(self) -> None:
        if not os.path.lexists(self.master):
            self._write(self.master, MasterKey.generate().encode(), _PRIVATE)
        master = _read(self.master, MasterKey.parse, private=True)
        self._write(self.public, master.public_key.encode(), _PUBLIC)

    def _complete_key(self, now: datetime) -> None:
        if not os.path.lexists(self.key):
            if os.path.lexists(self.certificate):
                raise KeyUnusableError(f"{self.certificate} is there and its key {self.key} is not: restore the key")
            self._write(self.key, RepositoryKey.generate().encode(), _PRIVATE)
        if not os.path.lexists(self.certificate):
            key = _read(self.key, RepositoryKey.parse, private=True)
            self._write(self.certificate, key.certify(self._repository, now=now).encode(), _PUBLIC)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from making keys at the same time."""
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)

    def _write(self, path: Path, content: bytes, mode: int) -> None:
        temporary = path.with_name(f".{path.name}.new")
        with suppress(FileNotFoundError):
            temporary.unlink()  # a killed process may have left it
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # whatever the umask is
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        temporary.rename(path)
        sync_directory(self._directory)


def _read(path: Path, parse: Callable[[bytes], _Parsed], *, private: bool = False) -> _Parsed:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_LIMIT + 1)
    except OSError as error:
        raise KeyUnusableError(f"{path} cannot be read: {error.strerror}") from error
    if private and mode & _TOO_OPEN:
        raise KeyUnusableError(f"{path} is open to others (mode {stat.S_IMODE(mode):04o}): chmod 0400 it")
    if len(content) > _LIMIT:
        raise KeyUnusableError(f"{path} is larger than {_LIMIT} bytes: it is no key")
    try:
        return parse(content)
    except KeyUnusableError as error:
        raise KeyUnusableError(f"{path}: {error}") from None
