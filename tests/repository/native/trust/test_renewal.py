"""The whitelist in a repository, as time goes by."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.repository.native.errors import ObjectMissingError
from services.repository.native.records import WHITELIST, ContentHash, HashAlgorithm
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.trust.errors import (
    KeyUnusableError,
    SignatureError,
    TrustError,
    WhitelistError,
)
from services.repository.native.trust.keyring import KeyFiles
from services.repository.native.trust.keys import MasterKey, RepositoryKey
from services.repository.native.trust.renewal import WhitelistFile, sign_whitelist
from services.repository.native.trust.whitelist import Whitelist
from tests.repository.native.conftest import NAME

SHA1 = HashAlgorithm.SHA1
START = datetime(2026, 11, 24, 6, 44, 15, tzinfo=UTC)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now.timestamp()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def storage(tmp_path: Path) -> DirectoryStorage:
    storage = DirectoryStorage(tmp_path / "repository")
    storage.prepare()
    return storage


@pytest.fixture
def file(storage: DirectoryStorage, keys: KeyFiles, clock: Clock) -> WhitelistFile:
    return WhitelistFile(name=NAME, storage=storage, keys=keys, algorithm=SHA1, clock=clock)


def read(storage: DirectoryStorage, keys: KeyFiles) -> Whitelist:
    return Whitelist.verify(storage.read(WHITELIST), keys.load().public)


def test_renewing_gives_thirty_days_more(
    file: WhitelistFile, storage: DirectoryStorage, keys: KeyFiles, clock: Clock
) -> None:
    file.renew()
    clock.now += timedelta(days=20)
    assert file.state().left == timedelta(days=10) - timedelta(minutes=44, seconds=15)
    state = file.renew()
    assert state.expires == datetime(2027, 1, 13, 6, tzinfo=UTC)
    assert state.renewable
    assert read(storage, keys).expires == clock.now + timedelta(days=30)


def test_an_expired_one_is_described_and_can_be_renewed(file: WhitelistFile, clock: Clock) -> None:
    file.renew()
    clock.now += timedelta(days=40)
    assert file.state().left < timedelta()
    assert file.renew().left > timedelta(days=29)


def test_other_certificates_stay_until_they_are_dropped(
    file: WhitelistFile, storage: DirectoryStorage, keys: KeyFiles
) -> None:
    file.renew()
    old = ContentHash.of(keys.load().certificate.der)
    for path in (keys.key, keys.certificate):
        path.unlink()
    new = ContentHash.of(keys.complete(now=START).certificate.der)
    with pytest.raises(WhitelistError, match="does not name the certificate in use"):
        file.state()
    file.renew()
    assert read(storage, keys).certificates == (new, old)
    file.renew_alone()
    assert read(storage, keys).certificates == (new,)


def test_a_whitelist_of_another_master_key_is_not_continued(
    file: WhitelistFile, storage: DirectoryStorage, keys: KeyFiles
) -> None:
    intruder = ContentHash.of(b"another certificate")
    forged = Whitelist(repository=NAME, issued=START, expires=START + timedelta(days=30), certificates=(intruder,))
    storage.replace(WHITELIST, forged.sign(MasterKey.generate(), algorithm=SHA1))
    with pytest.raises(SignatureError):
        file.state()
    file.renew()
    assert read(storage, keys).certificates == (ContentHash.of(keys.load().certificate.der),)


def test_one_that_was_signed_elsewhere_is_verified_before_it_is_used(
    file: WhitelistFile, storage: DirectoryStorage, keys: KeyFiles, clock: Clock
) -> None:
    master, certificate = keys.load_master()
    keys.master.unlink()
    with pytest.raises(ObjectMissingError):
        file.state()
    with pytest.raises(KeyUnusableError, match="sign the whitelist where it is"):
        file.renew()
    good = sign_whitelist(master, certificate, NAME, algorithm=SHA1, validity=timedelta(days=30), now=START)
    assert not file.install(good).renewable
    assert storage.read(WHITELIST) == good

    other = RepositoryKey.generate().certify(NAME, now=START)
    strange = Whitelist(
        repository=NAME,
        issued=START,
        expires=START + timedelta(days=30),
        certificates=(ContentHash.of(other.der),),
    )
    for wrong in (
        good.replace(b"E20261224", b"E20361224"),
        strange.sign(master, algorithm=SHA1),
        strange.sign(MasterKey.generate(), algorithm=SHA1),
    ):
        with pytest.raises(TrustError):
            file.install(wrong)
    clock.now += timedelta(days=30)
    with pytest.raises(WhitelistError, match="expired"):
        file.install(good)
    assert storage.read(WHITELIST) == good
