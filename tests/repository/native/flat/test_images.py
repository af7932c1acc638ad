"""Flat images as a publisher puts them into a native repository: with the image, once, the same everywhere."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from services.common.archive.model import LayerArchive
from services.common.digest import Digest
from services.common.layout import sidecar_path
from services.common.sidecar import LayerSidecar
from services.repository.errors import ImageAdditionError, ImageRefusedError
from services.repository.image_platforms import platform_images
from services.repository.images import ImageDocuments
from services.repository.interface import Repository
from services.repository.native.flat.places import flat_path
from services.repository.native.reader.catalog import CatalogReference
from services.repository.native.records import EntryFlag, ObjectKind
from services.repository.native.trust.keyring import KeyFiles
from services.repository.native.writer.pool import TRAY_SIZE
from services.repository.native.writer.tree_rows import TreeRows
from services.repository.outputs import FlatOutput, ImageOutputs
from tests.support.images import change, image_of_layers
from tests.support.native import NATIVE_NAME, NativeSite, tar_archive
from tests.support.native_trees import read_flat, read_native
from tests.support.publisher import verified
from tests.support.tars import archive, member, pax
from tests.support.thin_repository import thin_repository

_SHELVES = b"/.flat"
_FLAT = ImageOutputs(flat=FlatOutput())
_OPEN = ImageOutputs(flat=FlatOutput(others_read=True))
_CAPABILITY = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)


def _image(
    layers: Sequence[LayerArchive], outputs: ImageOutputs = _FLAT, name: str = "quay.io/ns/tool:v1"
) -> ImageDocuments:
    return image_of_layers(name, ("amd64", layers), outputs=outputs)


def _config(image: ImageDocuments) -> Digest:
    return platform_images(image)[0].config_digest


def _catalog(site: NativeSite, image: ImageDocuments) -> CatalogReference:
    with site.newest() as revision:
        found = revision.catalog_of(flat_path(_config(image)))
        assert found.path == flat_path(_config(image))
        return found


def _layer(directory: Path, *members: bytes) -> LayerArchive:
    return tar_archive(directory, archive(*members))


def _base(directory: Path) -> LayerArchive:
    capable = pax({b"SCHILY.xattr.security.capability": _CAPABILITY})
    return _layer(
        directory,
        member(b"./", typeflag=b"5", mode=0o755),
        member(b"bin/", typeflag=b"5", mode=0o755),
        capable + member(b"bin/ping", b"ping", mode=0o4755),
        member(b"etc/", typeflag=b"5", mode=0o500),
        member(b"etc/shadow", b"secret", mode=0o000),
        member(b"etc/hostname", b"base", mode=0o644, uid=3, gid=4),
    )


async def test_a_flat_image_is_in_the_revision_of_its_image(site: NativeSite, tmp_path: Path) -> None:
    layers = [_base(tmp_path), _layer(tmp_path, member(b"etc/hostname", b"top", mode=0o640, uid=1000))]
    image = _image(layers)
    async with site.opened() as repository:
        revision = await change(repository, layers=layers, put=[image])
    assert site.revision() == revision
    with site.newest() as newest:
        tree = read_flat(newest, platform_images(image)[0])
        assert {path: (oct(entry.mode), entry.uid) for path, entry in tree.items()} == {
            b".": ("0o755", 0),
            b"bin": ("0o755", 0),
            b"bin/ping": ("0o4755", 0),
            # The archive of the upper layer has no entry for it, so that the lower one's attributes are hidden.
            b"etc": ("0o755", 0),
            b"etc/shadow": ("0o400", 0),
            b"etc/hostname": ("0o640", 1000),
        }
        assert tree[b"bin/ping"].xattrs == {"security.capability": _CAPABILITY}
        assert [entry.name for entry in newest.list(_SHELVES)] == [_config(image)[:2].encode()]
    assert site.problems() == []


async def test_everybody_may_read_it_if_that_is_asked_for(site: NativeSite, tmp_path: Path) -> None:
    layers = [_base(tmp_path)]
    async with site.opened() as repository:
        await change(repository, layers=layers, put=[_image(layers)])
        before = _catalog(site, _image(layers))
        await change(repository, put=[_image(layers, _OPEN)])
        assert _catalog(site, _image(layers)) != before
        with site.newest() as newest:
            tree = read_flat(newest, platform_images(_image(layers))[0])
        assert {path: oct(entry.mode) for path, entry in tree.items()} == {
            b".": "0o755",
            b"bin": "0o755",
            b"bin/ping": "0o4755",
            b"etc": "0o705",
            b"etc/shadow": "0o404",
            b"etc/hostname": "0o644",
        }
        await change(repository, put=[_image(layers)])
    assert _catalog(site, _image(layers)) == before
    assert site.problems() == []


async def test_the_same_image_is_the_same_catalog_from_every_publisher(
    site: NativeSite, keys: KeyFiles, tmp_path: Path
) -> None:
    other = NativeSite(root=tmp_path / "other", state=tmp_path / "other-state", keys=keys)
    other.create()
    several = (member(b"srv/%d" % number) for number in range(600))  # catalogs
    base, top = _base(tmp_path), _layer(tmp_path, member(b"usr/bin/tool", b"tool"), *several)
    image = _image([base, top])
    async with site.opened() as one:
        await change(one, layers=[base, top], put=[image])
    async with other.opened() as two:  # whose layers come in another order, in other revisions, by other processes
        await change(two, layers=[top])
        await change(two, layers=[base])
    async with other.opened() as two:  # which has to read them
        await change(two, put=[image])
    assert _catalog(site, image) == _catalog(other, image)


async def test_what_is_there_is_not_made_again(
    site: NativeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = [_base(tmp_path)]
    async with site.opened() as repository:
        await change(repository, layers=layers, put=[_image(layers)])
        before = _catalog(site, _image(layers))

        def never(*_arguments: object, **_more: object) -> None:
            raise AssertionError("it has been composed once more")

        monkeypatch.setattr(repository.composer, "compose", never)
        await change(repository, put=[_image(layers), _image(layers, name="quay.io/ns/tool:latest")])
    assert _catalog(site, _image(layers)) == before
    assert site.problems() == []


async def test_large_files_keep_their_parts_and_hard_links_are_counted_anew(site: NativeSite, tmp_path: Path) -> None:
    large = b"large" * (TRAY_SIZE // 4)
    base = _layer(
        tmp_path,
        member(b"d/large", large),
        *(member(b"d/%s" % name, typeflag=b"1", link=b"d/large") for name in (b"one", b"two")),
        member(b"e/a", b"a"),
        member(b"e/b", typeflag=b"1", link=b"e/a"),
    )
    top = _layer(tmp_path, member(b"d/two", b"new"), member(b"e/.wh.a"))
    image = _image([base, top])
    async with site.opened() as repository:
        await change(repository, layers=[base, top], put=[image])
    with site.newest() as newest:
        tree = read_flat(newest, platform_images(image)[0])
        file = newest.stat(flat_path(_config(image)) + b"/d/large")
        assert file is not None
        assert EntryFlag.CHUNKED in file.flags
        assert b"".join(newest.content(file)) == large
    assert tree[b"d/large"].links == (b"d/large", b"d/one")
    assert tree[b"d/two"].links == tree[b"e/b"].links == ()
    assert site.problems() == []


async def _reported(
    repository: Repository, layers: Sequence[LayerArchive], image: ImageDocuments
) -> dict[Digest, dict[str, tuple[int, tuple[str, ...]]]]:
    """Publish an image; return what people must know of its flat images."""
    prepared = [await repository.prepare(verified(layer)) for layer in layers]
    async with repository.transaction("token") as transaction:
        for layer in prepared:
            await transaction.add(layer)
        await transaction.put_image(image)
        reports = transaction.reports()
        await transaction.publish()
    for layer in prepared:
        await repository.discard(layer)
    return {
        config: {str(kind): (report.count, report.first) for kind, report in found.items()}
        for config, found in reports.items()
    }


async def test_names_that_cvmfs_gives_a_meaning_to_are_left_out(site: NativeSite, tmp_path: Path) -> None:
    layer = _layer(tmp_path, member(b"a/.cvmfsdirtab", b"/*"), member(b"a/b", b"b"), member(b".cvmfsautocatalog"))
    image = _image([layer])
    async with site.opened() as repository:
        told = await _reported(repository, [layer], image)
    assert told == {_config(image): {"dropped-name": (2, ("'.cvmfsautocatalog'", "'a/.cvmfsdirtab'"))}}
    with site.newest() as newest:
        tree = read_flat(newest, platform_images(image)[0])
    assert sorted(tree) == [b".", b"a", b"a/b"]


async def test_an_image_without_layers_has_what_is_generated(site: NativeSite) -> None:
    image = _image([])
    async with site.opened() as repository:
        await change(repository, put=[image])
    with site.newest() as newest:
        assert read_flat(newest, platform_images(image)[0]).keys() == {b"."}
    assert site.problems() == []


async def test_what_is_generated_respects_what_the_image_has(site: NativeSite, tmp_path: Path) -> None:
    layer = _layer(
        tmp_path,
        member(b".singularity.d/", typeflag=b"5", mode=0o711, mtime=5),
        member(b".singularity.d/kept", b"kept"),
        member(b".singularity.d/runscript", b"replaced"),
        member(b"etc", typeflag=b"2", link=b"usr/etc"),
        member(b"tmp", b"a file"),
        member(b"usr/etc/hosts", b"hosts"),
    )
    image = image_of_layers("quay.io/ns/tool:v1", ("amd64", [layer]), outputs=_FLAT, config={"Cmd": ["/bin/tool"]})
    async with site.opened() as repository:
        await change(repository, layers=[layer], put=[image])
    with site.newest() as newest:
        tree = read_native(newest, flat_path(_config(image)))
        script = newest.stat(flat_path(_config(image)) + b"/.singularity.d/runscript")
        assert script is not None
        assert b"'/bin/tool'" in b"".join(newest.content(script))
        assert newest.catalog_of(flat_path(_config(image)) + b"/.singularity.d").path == flat_path(_config(image))
    assert (tree[b".singularity.d"].mode, tree[b".singularity.d/kept"].size) == (0o711, 4)
    assert tree[b"etc"].target == b"usr/etc"
    assert (tree[b"tmp"].kind, tree[b"var/tmp"].mode) == ("file", 0o1777)
    created = 1714979289  # of the configuration
    assert {entry.mtime for path, entry in tree.items() if path.startswith(b".singularity.d/env/")} == {created * 10**9}
    assert b"etc/resolv.conf" not in tree
    assert site.problems() == []


async def test_every_platform_has_its_own(site: NativeSite, tmp_path: Path) -> None:
    layers = [_layer(tmp_path, member(b"machine", machine)) for machine in (b"amd64", b"arm64")]
    image = image_of_layers("quay.io/ns/tool:v1", ("amd64", layers[:1]), ("arm64:v8", layers[1:]), outputs=_FLAT)
    async with site.opened() as repository:
        await change(repository, layers=layers, put=[image])
    with site.newest() as newest:
        for platform, content in zip(platform_images(image), (b"amd64", b"arm64"), strict=True):
            file = newest.stat(flat_path(platform.config_digest) + b"/machine")
            assert file is not None
            assert b"".join(newest.content(file)) == content
    assert site.problems() == []


async def test_a_layer_that_is_not_there_is_told_and_nothing_is_changed(site: NativeSite, tmp_path: Path) -> None:
    here, missing = _base(tmp_path), _layer(tmp_path, member(b"missing", b"x"))
    async with site.opened() as repository:
        await change(repository, layers=[here])
        async with repository.transaction("token") as transaction:
            with pytest.raises(ImageAdditionError, match=f"layer {missing.digest} is not in the repository"):
                await transaction.put_image(_image([here, missing]))
            await transaction.publish()
        assert await repository.list_images() == []
    with site.newest() as newest:
        assert newest.stat(_SHELVES) is None
    assert site.problems() == []


@pytest.mark.parametrize("deleted", [(), ("etc/hostname",)], ids=["nothing", "a file"])
async def test_of_layers_that_cvmfs_server_has_published_only_those_that_delete_nothing_are_taken(
    site: NativeSite, tmp_path: Path, deleted: tuple[str, ...]
) -> None:
    layer = _base(tmp_path)
    image = _image([layer])
    async with site.opened() as repository:
        await change(repository, layers=[layer])
        with site.newest() as newest:
            entry = newest.stat(b"/" + sidecar_path(layer.digest).encode())
            assert entry is not None
            sidecar = LayerSidecar.parse(b"".join(newest.content(entry)), where="sidecar")
        listed = sidecar.model_copy(update={"deletions": "listed", "whiteouts": deleted})
        with site.changing() as catalogs:
            TreeRows(catalogs).put_file(b"/" + sidecar_path(layer.digest).encode(), listed.encode())
        async with repository.transaction("token") as transaction:
            if deleted:
                with pytest.raises(ImageRefusedError, match="was published by cvmfs_server"):
                    await transaction.put_image(image)
            else:
                await transaction.put_image(image)
                await transaction.publish()
    assert site.problems() == []


async def test_what_is_in_the_way_of_flat_images_is_told(site: NativeSite, tmp_path: Path) -> None:
    layer = _base(tmp_path)
    with site.changing() as catalogs:
        TreeRows(catalogs).put_symlink(_SHELVES, b"elsewhere")
    async with site.opened() as repository:
        await change(repository, layers=[layer])
        async with repository.transaction("token") as transaction:
            with pytest.raises(ImageAdditionError, match=r"/.flat is no directory"):
                await transaction.put_image(_image([layer]))


async def test_a_flat_image_is_taken_out_by_its_configuration(site: NativeSite, tmp_path: Path) -> None:
    layer = _base(tmp_path)
    image = _image([layer])
    async with site.opened() as repository:
        await change(repository, layers=[layer], put=[image])
        await change(repository, remove=[str(image.name)])
        _catalog(site, image)  # jobs still run in it
        async with repository.transaction("token") as transaction:
            await transaction.remove_flat(_config(image))
            await transaction.remove_flat(Digest("0" * 64))  # which was never there
            await transaction.publish()
    with site.newest() as newest:
        assert newest.stat(flat_path(_config(image))) is None
        assert list(newest.list(_SHELVES + b"/" + _config(image)[:2].encode())) == []
    assert site.problems() == []


async def test_what_is_not_as_apptainer_would_unpack_it_is_told(site: NativeSite, tmp_path: Path) -> None:
    layers = [
        _layer(
            tmp_path,
            member(b"lib", typeflag=b"2", link=b"usr/lib"),
            member(b"root", typeflag=b"5", mode=0o700, mtime=1),
            member(b"opt", typeflag=b"5", mode=0o755, mtime=1),
            member(b"shown", typeflag=b"2", link=b"$(HOME)"),
            member(b"hidden", typeflag=b"2", link=b"$(HOME)"),
            member(b"etc", b"in the way of etc/hosts"),
        ),
        _layer(tmp_path, member(b"root/a", b"a")),
        _layer(
            tmp_path, member(b"lib/x", b"x"), member(b"root/b", b"b"), member(b"opt/x", b"x"), member(b"hidden", b"")
        ),
    ]
    image = image_of_layers("quay.io/ns/tool:v1", ("amd64", layers), outputs=_FLAT, config={"Env": ["A-B=x"]})
    async with site.opened() as repository:
        told = await _reported(repository, layers, image)
    assert told == {
        _config(image): {
            "hidden-link": (1, ("'lib'",)),
            "implied-directory": (1, ("'root'",)),
            "variant-link": (1, ("'shown'",)),
            "not-generated": (2, ("'etc/hosts'", "'etc/resolv.conf'")),
            "left-out-variable": (1, ("'A-B'",)),
        }
    }


async def test_a_damaged_one_is_made_anew_when_its_image_is_published_again(site: NativeSite, tmp_path: Path) -> None:
    """Whether its own catalog is damaged, or one below is missing; the name leads to nothing whole until then."""
    layers = [_layer(tmp_path, *(member(b"srv/%d" % number) for number in range(600)))]
    image, neighbour = _image(layers), _image([], name="quay.io/ns/other:v1")
    async with site.opened() as repository:
        await change(repository, layers=layers, put=[image, neighbour])
        before = _catalog(site, image)
        with site.newest() as newest:
            below = newest.catalog_of(flat_path(_config(image)) + b"/srv")
        assert below != before
        for harm in (
            (site.root / below.hash.path(ObjectKind.CATALOG)).unlink,
            lambda: (site.root / before.hash.path(ObjectKind.CATALOG)).write_bytes(b"damaged"),
            (site.root / before.hash.path(ObjectKind.CATALOG)).unlink,
        ):
            harm()
            assert site.problems() != []
            assert await repository.flats_of(image.name) == frozenset()
            assert await repository.flats_of(neighbour.name) == {_config(neighbour)}
            await change(repository, put=[image])
            assert await repository.flats_of(image.name) == {_config(image)}
            assert site.problems() == []
    assert _catalog(site, image) == before


async def test_operators_take_out_one_that_is_damaged(site: NativeSite, tmp_path: Path) -> None:
    place = (NATIVE_NAME, "--directory", site.root, "--keys", site.keys.key.parent, "--state", site.state)
    layers = [_base(tmp_path)]
    image = _image(layers)
    config = _config(image)
    async with site.opened() as repository:
        await change(repository, layers=layers, put=[image])
        (site.root / _catalog(site, image).hash.path(ObjectKind.CATALOG)).unlink()
        removed = thin_repository("remove", *place, "--flat", config, "--json").document
        assert removed == {"removed": [], "flats": [config], "revision": site.revision()}
        assert await repository.list_flats() == frozenset()
        await change(repository, put=[image])
        assert await repository.flats_of(image.name) == {config}
    assert site.problems() == []
    refused = thin_repository("remove", *place, "--flat", "0" * 64)
    assert refused.status == 1
    assert f".flat/00/{'0' * 64}: nothing has been removed" in refused.error
    assert "name a layer, or a flat image" in thin_repository("remove", *place).error
