"""Images in a native repository: rows of small files, in catalogs that stay small and whose statistics are right."""

import time
from contextlib import closing
from pathlib import Path

import pytest

from services.common.image_name import ImageName
from services.common.layout import CATALOG_MARKER
from services.repository.errors import ImageAdditionError
from services.repository.interface import Publication
from services.repository.native.access import RepositoryAccess
from services.repository.native.collection.collector import Collector
from services.repository.native.collection.retention import Retention
from services.repository.native.reader.catalog import Catalog
from services.repository.native.reader.database import Database
from services.repository.native.records import EntryFlag, ObjectKind
from services.repository.native.writer import image_rows
from services.repository.native.writer.catalog import Catalog as WrittenCatalog
from services.repository.native.writer.file_entries import put_file
from services.repository.native.writer.head import Root
from services.repository.native.writer.open_catalogs import NEW_DIRECTORY
from services.repository.native.writer.rows import file_row, link_row
from tests.support.images import change, documents
from tests.support.native import NATIVE_NAME, NativeSite
from tests.support.publisher import make_layer, verified

_ONE, _TWO = "quay.io/ns/one:v1", "localhost:5000/two:latest"


def _access(site: NativeSite) -> RepositoryAccess:
    return RepositoryAccess.open(name=NATIVE_NAME, storage=site.storage, keys=site.keys)


def _put_into_root(site: NativeSite, *entries: bytes, count: int = 0) -> None:
    """Leave entries below `.metadata` in the root catalog, as another program would.

    A path that ends with a slash is a directory, one with `->` a link, another one a file with a document in it.

    Parameters
    ----------
    count
        So many images of DUCC's are there as well.
    """
    access = _access(site)
    many = [b"/.metadata/docker.io/"] if count else []
    for number in range(count):
        place = b"/.metadata/docker.io/tool:%d/" % number
        many += [place, place + b"manifest.json"]
    with (
        access.changing() as previous,
        closing(WrittenCatalog(access.get(previous.root, ObjectKind.CATALOG), where="the root catalog")) as root,
    ):
        content = access.put(b"DUCC's", ObjectKind.FILE)
        for entry in (*entries, *many):
            path, _, target = entry.partition(b"->")
            if target:
                root.insert(link_row(path, target), "self_symlink")
            elif path.endswith(b"/"):
                root.insert(NEW_DIRECTORY.row(path[:-1], EntryFlag.DIRECTORY), "self_dir")
                root.link_directories(path[:-1].rpartition(b"/")[0], 1)
            else:
                put_file(root, file_row(path, mode=0o644, name=content, size=6))
        revision, published = previous.revision + 1, previous.published + 1
        root.set_properties({"revision": str(revision), "previous_revision": str(previous.root)})
        made = root.content()
        catalog = access.put(made, ObjectKind.CATALOG)
        access.head.publish(
            Root(catalog=catalog, size=len(made), revision=revision, published=published), previous=previous
        )
    assert site.problems() == []


def _entries(site: NativeSite, path: bytes) -> int:
    """Count the entries of the catalog that a path is in."""
    with site.newest() as revision:
        database = Database.load(site.storage, revision.catalog_of(path).hash, ObjectKind.CATALOG)
        with closing(Catalog(database, path=revision.catalog_of(path).path)) as catalog:
            numbers = sorted(row.rowid for row in catalog.rows())
            assert numbers == list(range(1, len(numbers) + 1)), "clients reserve an inode for every number"
            return len(numbers)


async def test_images_have_a_catalog_that_is_none_of_the_layers(site: NativeSite, tmp_path: Path) -> None:
    layer = make_layer(tmp_path, "one")
    async with site.opened() as repository:
        await change(repository, layers=[layer], put=[documents(_ONE, "1", "arm64", "arm:v7"), documents(_TWO, "1")])
    with site.newest() as revision:
        document = revision.stat(f"/.metadata/{_ONE}/image.json".encode())
        assert document is not None
        assert (document.size, document.mode & 0o777, document.uid) == (1, 0o644, 0)
        roots = {revision.catalog_of(path).path for path in (b"", b"/.metadata", f"/.metadata/{_ONE}".encode())}
        assert roots == {b"", b"/.metadata"}
        assert CATALOG_MARKER.encode() not in [entry.name for entry in revision.list(b"/.metadata")]
    assert site.problems() == []


async def test_what_is_replaced_leaves_no_gaps_and_its_objects_are_collected(site: NativeSite) -> None:
    async with site.opened() as repository:
        await change(repository, put=[documents(_ONE, "a replaced version", "arm64"), documents(_TWO, "1")])
        with site.newest() as revision:
            replaced = revision.stat(f"/.metadata/{_ONE}/image.json".encode())
        assert replaced is not None
        assert replaced.hash is not None
        before = _entries(site, b"/.metadata")
        await change(repository, put=[documents(_ONE, "2")])
        assert _entries(site, b"/.metadata") == before - 2 - len((".multiarch", "arm64", "quay.io", "ns", "one:v1"))
        await change(repository, remove=[_TWO])
    assert site.problems() == []

    def tomorrow() -> float:
        return time.time() + 24 * 3600

    access = RepositoryAccess.open(name=NATIVE_NAME, storage=site.storage, keys=site.keys, clock=tomorrow)
    Collector(
        access=access,
        retention=Retention(revisions=1, days=0),
        forget=lambda _digests: None,
        patience=0,
        clock=tomorrow,
    ).collect()
    assert site.storage.size(replaced.hash.path(ObjectKind.FILE)) is None
    assert site.problems() == []
    async with site.opened() as repository:
        assert await repository.read_image(ImageName(_ONE)) == documents(_ONE, "2").files


@pytest.fixture
def small_catalogs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catalogs that are full with a tenth of what they may have."""
    monkeypatch.setattr(image_rows, "_LARGEST", 400)
    monkeypatch.setattr(image_rows, "_WORTH", 50)


@pytest.mark.usefixtures("small_catalogs")
async def test_a_catalog_of_documents_that_grows_is_split_where_it_is_heaviest(site: NativeSite) -> None:
    many = [documents(f"docker.io/ns{number % 2}/tool:{number}", "1") for number in range(150)]
    few = [documents(f"quay.io/ns/tool:{number}", "1", "arm64") for number in range(2)]
    async with site.opened() as repository:
        await change(repository, put=[*few, *many[:90]])
        assert 300 < _entries(site, b"/.metadata") < 400
        await change(repository, put=many[90:])
        with site.newest() as revision:
            places = (b"/.metadata/quay.io", b"/.metadata/docker.io", b"/.metadata/docker.io/ns0")
            assert [revision.catalog_of(place).path for place in places] == [b"/.metadata", places[1], places[2]]
        assert site.problems() == []
        assert max(_entries(site, place) for place in (b"/.metadata", *places)) <= 400
        await change(repository, put=[documents("docker.io/ns0/tool:0", "2"), documents("docker.io/ns0/new:1", "1")])
        assert len(await repository.list_images()) == 153
        found = await repository.read_image(ImageName("docker.io/ns0/tool:0"))
        assert found == documents("docker.io/ns0/tool:0", "2").files
        assert site.problems() == []
        # What is removed takes a catalog with it that has nothing else.
        await change(repository, remove=[image.name for image in many if image.name.repository == "ns0/tool"])
        await change(repository, remove=["docker.io/ns0/new:1"])
        with site.newest() as revision:
            assert revision.stat(b"/.metadata/docker.io/ns0") is None
            assert revision.stat(b"/.metadata/docker.io/ns1") is not None
        assert site.problems() == []


async def test_what_ducc_has_left_is_listed_read_replaced_and_removed(site: NativeSite) -> None:
    place = f"/.metadata/{_ONE}/".encode()
    above = (b"/.metadata/", b"/.metadata/quay.io/", b"/.metadata/quay.io/ns/")
    _put_into_root(site, *above, place, place + b"manifest.json", place + b"other", b"/.metadata/remove-schedule.json")
    async with site.opened() as repository:
        assert await repository.list_images() == [ImageName(_ONE)]
        assert await repository.read_image(ImageName(_ONE)) == {
            f"{_ONE}/manifest.json": b"DUCC's",
            f"{_ONE}/other": b"DUCC's",
        }
        await change(repository, put=[documents(_ONE, "1"), documents(_TWO, "1")])
        assert await repository.read_image(ImageName(_ONE)) == documents(_ONE, "1").files
        assert await repository.list_images() == [ImageName(_TWO), ImageName(_ONE)]
        assert site.problems() == []
        await change(repository, remove=[_ONE, _TWO])
        assert await repository.list_images() == []
    with site.newest() as revision:
        assert [entry.name for entry in revision.list(b"/.metadata")] == [b"remove-schedule.json"]
    assert site.problems() == []


@pytest.mark.usefixtures("small_catalogs")
async def test_what_ducc_has_left_in_the_root_gets_a_catalog_when_it_is_much(site: NativeSite) -> None:
    _put_into_root(site, b"/.metadata/", count=60)
    async with site.opened() as repository:
        await change(repository, put=[documents(_ONE, "1")])
        assert len(await repository.list_images()) == 61
    assert _entries(site, b"") < 10
    with site.newest() as revision:
        assert revision.catalog_of(b"/.metadata/docker.io").path == b"/.metadata"
    assert site.problems() == []


@pytest.mark.parametrize(
    "entries",
    [
        [b"/.metadata"],
        [b"/.metadata->/etc"],
        [b"/.metadata/", b"/.metadata/quay.io->elsewhere"],
        [b"/.metadata/", b"/.metadata/quay.io/", b"/.metadata/quay.io/ns/", b"/.metadata/quay.io/ns/one:v1"],
        [
            b"/.metadata/",
            b"/.metadata/quay.io/",
            b"/.metadata/quay.io/ns/",
            b"/.metadata/quay.io/ns/one:v1/",
            b"/.metadata/quay.io/ns/one:v1/inner/",
        ],
        [b"/.metadata/", b"/.metadata/.multiarch/", b"/.metadata/.multiarch/arm64->elsewhere"],
    ],
)
async def test_what_others_have_put_in_the_place_of_an_image_is_left_alone(
    site: NativeSite, tmp_path: Path, entries: list[bytes]
) -> None:
    _put_into_root(site, *entries)
    layer = make_layer(tmp_path, "one")
    last = entries[-1].partition(b"->")[0].decode().rstrip("/")
    async with site.opened() as repository:
        prepared = await repository.prepare(verified(layer))
        async with repository.transaction("token") as transaction:
            await transaction.add(prepared)
            with pytest.raises(ImageAdditionError, match=f"{last} is no .*, and not this suite's: remove it"):
                await transaction.put_image(documents(_ONE, "1", "arm64"))
            revision = await transaction.publish()
        await repository.discard(prepared)
        assert await repository.lookup(layer.digest) == Publication(revision=revision)
        assert await repository.read_image(ImageName(_ONE)) is None
    with site.newest() as newest:
        assert newest.stat(last.encode()) is not None
    assert site.problems() == []


async def test_a_removed_layer_can_come_back(site: NativeSite, tmp_path: Path) -> None:
    one, two = make_layer(tmp_path, "one"), make_layer(tmp_path, "two")
    async with site.opened() as repository:
        await change(repository, layers=[one, two], put=[documents(_ONE, "1")])
        await change(repository, remove=[_ONE], remove_layers=[one.digest])
        assert await repository.lookup(one.digest) is None
        assert await repository.lookup(two.digest) is not None
        with site.newest() as newest:
            assert newest.stat(f"/{one.digest}".encode()) is None
        assert site.problems() == []
        revision = await change(repository, layers=[one])
        assert await repository.lookup(one.digest) == Publication(revision=revision)
    assert site.problems() == []
