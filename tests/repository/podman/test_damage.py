"""Whatever is damaged of an image in a store is found in repositories of either kind, and made again with the image."""

import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.common.deletion import delete_tree
from services.common.image_name import ImageName
from services.common.image_outputs import ImageOutputs, PodmanOutput
from services.common.layout import LayerLayout
from services.repository.directory.repository import DirectoryRepository
from services.repository.image_platforms import PlatformImage, platform_images
from services.repository.images import ImageDocuments
from services.repository.interface import Repository, StoredImage
from services.repository.native.trust.keyring import KeyFiles
from services.repository.native.writer.tree_rows import TreeRows
from tests.support.images import change, image_of_layers
from tests.support.native import NATIVE_NAME, NativeSite
from tests.support.publisher import make_layer
from tests.support.store_damage import Damage, store_damages

_NAME = ImageName("quay.io/ns/tool:v1")
_STORE = "podmanStore"


@dataclass(frozen=True, kw_only=True)
class Site:
    """A repository that has an image in a store."""

    repository: Repository
    image: ImageDocuments
    read: Callable[[str], bytes]
    """Reads a file of the store."""
    damage: Callable[[Sequence[Damage]], None]
    problems: Callable[[], list[str]]
    """What the check of the repository says, where there is one."""

    @property
    def platform(self) -> PlatformImage:
        """What the image is made of."""
        return platform_images(self.image)[0]

    async def missing(self) -> list[ImageName]:
        """Return which images are not as they should be."""
        return list(await self.repository.not_in_stores([self.image]))


def _changes(damages: Sequence[Damage]) -> Iterator[tuple[str, bytes | None, str | None]]:
    return ((file, content, damage.link) for damage in damages for file, content in damage.files.items())


def _damage_tree(store: Path, damages: Sequence[Damage]) -> None:
    for file, content, link in _changes(damages):
        place = store / file
        if place.is_dir() and not place.is_symlink():
            delete_tree(place)
        else:
            place.unlink(missing_ok=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        if link is not None:
            place.symlink_to(link)
        elif content is not None:
            place.write_bytes(content)


def _damage_rows(site: NativeSite, damages: Sequence[Damage]) -> None:
    with site.changing() as catalogs:
        rows = TreeRows(catalogs)
        for file, content, link in _changes(damages):
            path = f"/{_STORE}/{file}".encode()
            rows.remove(path)
            if link is not None:
                rows.put_symlink(path, link.encode())
            elif content is not None:
                rows.put_file(path, content)


def _content(site: NativeSite, file: str) -> bytes:
    with site.newest() as revision:
        entry = revision.stat(f"/{_STORE}/{file}".encode())
        assert entry is not None
        return b"".join(revision.content(entry))


@pytest.fixture(params=["directory", "native"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    """A repository of each kind."""
    tree = tmp_path / "top.tree"
    (tree / "hidden").mkdir(parents=True)
    os.setxattr(tree / "hidden", "trusted.overlay.opaque", b"y")
    os.mknod(tree / "gone", stat.S_IFCHR, os.makedev(0, 0))
    layers = [make_layer(tmp_path, "base", {"gone": "", "hidden/old": ""}), make_layer(tmp_path, "top")]
    image = image_of_layers(_NAME, ("amd64", layers), outputs=ImageOutputs(podman=PodmanOutput()))
    async with AsyncExitStack() as stack:
        if request.param == "native":
            keys = KeyFiles(tmp_path / "keys", NATIVE_NAME)
            keys.complete(now=datetime.now(UTC))
            native = NativeSite(root=tmp_path / "native", state=tmp_path / "state", keys=keys)
            native.create()
            repository: Repository = await stack.enter_async_context(native.opened())
            site = Site(
                repository=repository,
                image=image,
                read=lambda file: _content(native, file),
                damage=lambda damages: _damage_rows(native, damages),
                problems=native.problems,
            )
        else:
            threads = stack.enter_context(ThreadPoolExecutor(2))
            store = tmp_path / "root" / _STORE
            repository = await stack.enter_async_context(
                DirectoryRepository(name=NATIVE_NAME, root=tmp_path / "root", layout=LayerLayout.FLAT, threads=threads)
            )
            site = Site(
                repository=repository,
                image=image,
                read=lambda file: (store / file).read_bytes(),
                damage=lambda damages: _damage_tree(store, damages),
                problems=list,
            )
        await change(repository, layers=layers, put=[image])
        yield site


async def test_what_is_damaged_is_made_again_by_publishing_the_image_again(site: Site) -> None:
    assert await site.missing() == []
    shown = {StoredImage(store=_STORE, name=_NAME, config=site.platform.config_digest)}
    assert await site.repository.list_stored() == shown
    # That each is found says test_inspection.py; here the last change to a file counts.
    damages = store_damages(site.platform, site.read)
    for some in (damages, [damage for damage in damages if not any(file.endswith(".json") for file in damage.files)]):
        site.damage(some)
        assert await site.missing() == [_NAME]
        await change(site.repository, put=[site.image])
        assert await site.missing() == []
    assert site.problems() == []
    assert await site.repository.list_stored() == shown
    # Podman cannot read anything of such a store.
    site.damage([Damage(files={"overlay-images/images.json": b"{"}, what="")])
    assert await site.missing() == [_NAME]
    assert await site.repository.list_stored() == set()
