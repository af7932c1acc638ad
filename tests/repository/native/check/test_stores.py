"""A store of podman's that contradicts itself, or the layers of the repository, is found."""

from collections.abc import Callable, Sequence
from pathlib import Path

from services.common.digest import Digest
from services.repository.image_platforms import platform_images
from services.repository.native.writer.open_catalogs import OpenCatalogs
from services.repository.native.writer.tree_rows import TreeRows
from services.repository.outputs import ImageOutputs, PodmanOutput
from services.repository.podman.identity import layer_ids, link_name
from tests.support.images import change, image_of_layers
from tests.support.native import NativeSite
from tests.support.publisher import make_layer

_NAME = "quay.io/ns/tool:v1"
_STORE = b"/podmanStore/"


def _put(path: str, content: bytes) -> Callable[[OpenCatalogs], None]:
    return lambda catalogs: TreeRows(catalogs).put_file(_STORE + path.encode(), content)


def _link(path: str, target: bytes) -> Callable[[OpenCatalogs], None]:
    return lambda catalogs: TreeRows(catalogs).put_symlink(_STORE + path.encode(), target)


def _remove(path: str) -> Callable[[OpenCatalogs], None]:
    def remove(catalogs: OpenCatalogs) -> None:
        TreeRows(catalogs).remove(_STORE + path.encode())

    return remove


def _damages(layers: Sequence[Digest], config: Digest) -> list[tuple[Callable[[OpenCatalogs], None], str]]:
    base, top = layers
    return [
        (
            _link(f"overlay/{top}/diff", b"/cvmfs/elsewhere"),
            f"/podmanStore/overlay/{top}/diff: does not lead to /cvmfs/",
        ),
        (
            _link(f"overlay/l/{link_name(base)}", b"../x/diff"),
            f"overlay/l/{link_name(base)}: does not lead",
        ),
        (_put(f"overlay/{top}/link", b"x"), f"/podmanStore/overlay/{top}/link: is not {link_name(top)}"),
        (_put(f"overlay/{top}/lower", b""), f"/podmanStore/overlay/{top}/lower: names other layers than those"),
        (_remove(f"overlay-images/{config}/manifest"), f"/podmanStore/overlay-images/{config}/manifest: is missing"),
        (_put("overlay-layers/layers.lock", b""), "/podmanStore/overlay-layers/layers.lock: does not say which list"),
        (_put("overlay-layers/layers.json", b"[]"), "which is not in the list of layers"),
        (_put("overlay-images/images.json", b"{"), "/podmanStore: a list of the store cannot be read"),
    ]


async def test_every_damage_is_told(site: NativeSite, tmp_path: Path) -> None:
    layers = [make_layer(tmp_path, name) for name in ("base", "top")]
    image = image_of_layers(_NAME, ("amd64", layers), outputs=ImageOutputs(podman=PodmanOutput()))
    async with site.opened() as repository:
        await change(repository, layers=layers, put=[image])
    assert site.problems() == []
    identifiers = list(layer_ids(layer.diff_id for layer in layers))
    for damage, said in _damages(identifiers, platform_images(image)[0].config_digest):
        with site.changing() as catalogs:
            damage(catalogs)
        problems = site.problems()
        assert any(said in problem for problem in problems), (said, problems)


async def test_a_store_whose_layer_has_gone_is_told(site: NativeSite, tmp_path: Path) -> None:
    layer = make_layer(tmp_path, "base")
    image = image_of_layers(_NAME, ("amd64", [layer]), outputs=ImageOutputs(podman=PodmanOutput()))
    async with site.opened() as repository:
        await change(repository, layers=[layer], put=[image])
        await change(repository, remove_layers=[layer.digest])
    (problem,) = site.problems()
    assert "leads to a layer that is not in the repository" in problem
