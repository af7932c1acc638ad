"""The whitelist in the repository: signing it anew where the master key is, taking one that was signed elsewhere."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from services.common.repository_name import RepositoryName
from services.repository.native.errors import ObjectMissingError
from services.repository.native.records import WHITELIST, ContentHash, HashAlgorithm
from services.repository.native.storage.interface import Storage
from services.repository.native.trust.errors import KeyUnusableError, TrustError, WhitelistError
from services.repository.native.trust.keyring import KeyFiles, Keyring
from services.repository.native.trust.keys import Certificate, MasterKey
from services.repository.native.trust.whitelist import Whitelist

__all__ = ["WHITELIST_VALIDITY", "WhitelistFile", "WhitelistState", "sign_whitelist"]

_log = structlog.get_logger(__name__)

WHITELIST_VALIDITY: Final = timedelta(days=30)
"""As `cvmfs_server` has it: what limits the harm of a stolen repository key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhitelistState:
    """What is known of the whitelist that clients see."""

    expires: datetime
    """Since when clients refuse it, UTC."""
    left: timedelta
    """Until then."""
    renewable: bool
    """Whether the master key is here."""


def sign_whitelist(
    master: MasterKey,
    certificate: Certificate,
    name: RepositoryName,
    *,
    algorithm: HashAlgorithm,
    validity: timedelta,
    now: datetime,
    others: tuple[ContentHash, ...] = (),
) -> bytes:
    """Sign a whitelist.

    Parameters
    ----------
    certificate
        The one whose key signs revisions now.
    validity
        How long clients accept it.
    others
        Certificates that it names besides, as while one key follows another.
    """
    issued = now.replace(microsecond=0)
    present = ContentHash.of(certificate.der, algorithm)
    whitelist = Whitelist(
        repository=name,
        issued=issued,
        expires=issued + validity,
        certificates=(present, *(other for other in others if other != present)),
    )
    return whitelist.sign(master, algorithm=algorithm)


class WhitelistFile:
    """The whitelist of one repository (blocking).

    The keys are read each time, since they may be replaced while a publisher runs.

    Parameters
    ----------
    name
        Name of the repository.
    storage
        Where it is.
    keys
        Its keys.
    algorithm
        The repository's hash algorithm.
    clock
        Seconds since the epoch.
    """

    def __init__(
        self,
        *,
        name: RepositoryName,
        storage: Storage,
        keys: KeyFiles,
        algorithm: HashAlgorithm,
        validity: timedelta = WHITELIST_VALIDITY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._storage = storage
        self._keys = keys
        self._algorithm = algorithm
        self._validity = validity
        self._clock = clock

    def state(self) -> WhitelistState:
        """Check the whitelist as clients do, its date apart.

        Raises
        ------
        TrustError
            There is none, its signature or form is wrong, or it is not of this repository and its certificate.
        StorageError
            It cannot be read.
        """
        certificate = self._keys.load_certificate()
        whitelist = self._read()
        whitelist.check_names(repository=self._name, certificate=certificate)
        return self._describe(whitelist)

    def check_signer(self, certificate: Certificate) -> None:
        """Make sure that clients would believe what a certificate's key signs now.

        Raises
        ------
        WhitelistError
            They would not.
        StorageError
            The whitelist cannot be read.
        """
        try:
            self._read().check_names(repository=self._name, certificate=certificate)
        except WhitelistError as error:
            raise WhitelistError(
                f"{error}: nothing is signed by its key. If the key has been changed, name its certificate "
                "(thin-repository resign); a program that began before that has the former one: start it again"
            ) from error

    def renew(self) -> WhitelistState:
        """Sign a new one, which also names the other certificates of the present one, if that is to be trusted.

        Raises
        ------
        TrustError
            The master key is not here.
        StorageError
            It cannot be stored.
        """
        keyring = self._keys.load()
        return self._renew(keyring, others=self._named())

    def renew_alone(self) -> WhitelistState:
        """Sign a new one that names the present certificate only; otherwise as `renew`."""
        return self._renew(self._keys.load(), others=())

    def _renew(self, keyring: Keyring, *, others: tuple[ContentHash, ...]) -> WhitelistState:
        if keyring.master is None:
            raise KeyUnusableError(
                f"the master key of {self._name} is not here: sign the whitelist where it is, and install that one"
            )
        content = sign_whitelist(
            keyring.master,
            keyring.certificate,
            self._name,
            algorithm=self._algorithm,
            validity=self._validity,
            now=self._now(),
            others=others,
        )
        return self._install(content, keyring)

    def examine(self, content: bytes) -> Whitelist:
        """Read a whitelist that was signed elsewhere, and make sure that clients would accept it with the present key.

        Raises
        ------
        TrustError
            They would not; the text says why.
        """
        return self._examine(content, self._keys.load())

    def install(self, content: bytes) -> WhitelistState:
        """Take a whitelist that was signed elsewhere, if clients would accept it.

        Raises
        ------
        TrustError
            They would not; the text says why.
        StorageError
            It cannot be stored.
        """
        return self._install(content, self._keys.load())

    def _install(self, content: bytes, keyring: Keyring) -> WhitelistState:
        whitelist = self._examine(content, keyring)
        self._storage.replace(WHITELIST, content)
        return self._describe(whitelist)

    def _examine(self, content: bytes, keyring: Keyring) -> Whitelist:
        whitelist = Whitelist.verify(content, keyring.public)
        whitelist.check(repository=self._name, certificate=keyring.certificate, now=self._now())
        return whitelist

    def _named(self) -> tuple[ContentHash, ...]:
        try:
            return self._read().certificates
        except ObjectMissingError:
            return ()
        except TrustError as error:
            _log.warning("the present whitelist is replaced, not continued", reason=str(error))
            return ()

    def _read(self) -> Whitelist:
        return Whitelist.verify(self._storage.read(WHITELIST), self._keys.load_public())

    def _describe(self, whitelist: Whitelist) -> WhitelistState:
        return WhitelistState(
            expires=whitelist.last_moment,
            left=whitelist.last_moment - self._now(),
            renewable=self._keys.has_master,
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)
