"""Another repository key takes the place of the one before, and clients believe the head all the time."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.common.archive.model import LayerArchive
from services.repository.errors import NoTransactionError
from services.repository.native.access import RepositoryAccess
from services.repository.native.collection.collector import Collector
from services.repository.native.collection.retention import Retention
from services.repository.native.errors import NativeError
from services.repository.native.records import MANIFEST, HashAlgorithm
from services.repository.native.rotation import drop_other_certificates, install_whitelist
from services.repository.native.tags import Tags
from services.repository.native.trust.errors import WhitelistError
from services.repository.native.trust.renewal import WHITELIST_VALIDITY, sign_whitelist
from services.repository.native.writer.history import TagName
from tests.support.native import NATIVE_NAME, NativeSite, publish, tar_archive
from tests.support.tars import archive, member


def layer(directory: Path, content: bytes) -> LayerArchive:
    return tar_archive(directory, archive(member(b"file", content)))


def access(site: NativeSite) -> RepositoryAccess:
    return RepositoryAccess.open(name=NATIVE_NAME, storage=site.storage, keys=site.keys)


def change_key(site: NativeSite) -> None:
    """Put another key and its certificate in place of those that are there."""
    site.keys.key.unlink()
    site.keys.certificate.unlink()
    site.keys.complete(now=datetime.now(UTC))


def signed_elsewhere(site: NativeSite) -> bytes:
    master, certificate = site.keys.load_master()
    return sign_whitelist(
        master,
        certificate,
        NATIVE_NAME,
        algorithm=HashAlgorithm.SHA1,
        validity=WHITELIST_VALIDITY,
        now=datetime.now(UTC),
    )


async def test_nothing_is_signed_by_a_key_that_the_whitelist_does_not_name(site: NativeSite, tmp_path: Path) -> None:
    change_key(site)
    before = site.storage.read(MANIFEST)
    with pytest.raises(WhitelistError, match="does not name the certificate"):
        Tags(access(site)).add(TagName("x"), description="", revision=None)
    with pytest.raises(NativeError, match="does not name the certificate"):
        async with site.opened():
            pass
    assert site.storage.read(MANIFEST) == before
    access(site).whitelist.renew()
    async with site.opened() as repository:
        assert await publish(repository, layer(tmp_path, b"new")) == 2
    assert site.problems() == []


async def test_every_change_of_the_head_names_the_certificate_that_signs_it(site: NativeSite, tmp_path: Path) -> None:
    change_key(site)
    access(site).whitelist.renew()
    Tags(access(site)).add(TagName("x"), description="", revision=None)
    assert site.problems() == []
    collector = Collector(
        access=access(site), retention=Retention(revisions=1, days=0), forget=lambda _digests: None, patience=1
    )
    collector.collect()
    async with site.opened() as repository:
        await publish(repository, layer(tmp_path, b"new"))
    assert site.problems() == []


async def test_a_publisher_that_has_the_former_key_changes_nothing(site: NativeSite, tmp_path: Path) -> None:
    async with site.opened() as repository:
        await publish(repository, layer(tmp_path, b"former"))
        change_key(site)
        drop_other_certificates(access(site))
        assert site.problems() == []
        with pytest.raises(NoTransactionError, match="start it again"):
            await publish(repository, layer(tmp_path, b"lost"))
        assert site.problems() == []
    async with site.opened() as repository:
        assert await publish(repository, layer(tmp_path, b"new")) == 3
    assert site.problems() == []


def test_a_whitelist_that_drops_the_former_certificate_may_come_from_elsewhere(site: NativeSite) -> None:
    change_key(site)
    content = signed_elsewhere(site)
    site.keys.master.unlink()
    install_whitelist(access(site), content)
    assert site.problems() == []


def test_what_a_kill_has_left_between_head_and_whitelist_is_made_whole(
    site: NativeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_key(site)
    content = signed_elsewhere(site)
    changed = access(site)
    with monkeypatch.context() as patched:
        patched.setattr(type(changed.whitelist), "install", lambda *_arguments: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            install_whitelist(changed, content)
    assert site.problems() != []
    install_whitelist(access(site), content)
    assert site.problems() == []


def test_a_head_that_nobody_known_has_signed_is_not_signed_anew(site: NativeSite) -> None:
    change_key(site)
    access(site).whitelist.renew_alone()  # as an operator may have done by hand
    before = site.storage.read(MANIFEST)
    with pytest.raises(NativeError, match="not to be trusted"):
        drop_other_certificates(access(site))
    assert site.storage.read(MANIFEST) == before
