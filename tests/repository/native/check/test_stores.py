"""A store of podman's that contradicts itself, or the layers of the repository, is found."""

from pathlib import Path

from services.repository.image_platforms import platform_images
from services.repository.native.access import RepositoryAccess
from services.repository.native.removal import remove_layers
from services.repository.native.writer.tree_rows import TreeRows
from services.repository.outputs import ImageOutputs, PodmanOutput
from services.repository.podman.identity import layer_ids, link_name
from tests.support.images import change, image_of_layers
from tests.support.native import NATIVE_NAME, NativeSite
from tests.support.publisher import make_layer

_NAME = "quay.io/ns/tool:v1"


async def test_what_is_wrong_with_a_store_is_told_at_its_path(site: NativeSite, tmp_path: Path) -> None:
    layers = [make_layer(tmp_path, name) for name in ("base", "top")]
    image = image_of_layers(_NAME, ("amd64", layers), outputs=ImageOutputs(podman=PodmanOutput()))
    async with site.opened() as repository:
        await change(repository, layers=layers, put=[image])
    assert site.problems() == []
    base, top = layer_ids(layer.diff_id for layer in layers)
    config = platform_images(image)[0].config_digest
    store = "/podmanStore"
    with site.changing() as catalogs:
        rows = TreeRows(catalogs)
        rows.put_symlink(f"{store}/overlay/{top}/diff".encode(), b"/cvmfs/elsewhere")
        rows.put_file(f"{store}/overlay/{base}/link".encode(), b"x")
        rows.put_file(f"{store}/overlay-layers/layers.lock".encode(), b"")
        rows.remove(f"{store}/overlay-images/{config}/manifest".encode())
    problems = site.problems()
    expected = [
        f"{store}/overlay-images/{config}/manifest: is missing, or not what the list of images says",
        f"{store}/overlay-layers/layers.lock: does not say which list it is for",
        f"{store}/overlay/{base}/link: is not {link_name(base)}",
        f"{store}/overlay/{top}/diff: does not lead to /cvmfs/",
    ]
    assert len(problems) == len(expected)
    for start, problem in zip(sorted(expected), sorted(problems), strict=True):
        assert problem.startswith(start)
    with site.changing() as catalogs:
        TreeRows(catalogs).put_file(f"{store}/overlay-images/images.json".encode(), b"{")
    assert any(each.startswith(f"{store}: a list of the store cannot be read") for each in site.problems())


async def test_a_store_whose_layer_has_gone_is_told(site: NativeSite, tmp_path: Path) -> None:
    layer = make_layer(tmp_path, "base")
    image = image_of_layers(_NAME, ("amd64", [layer]), outputs=ImageOutputs(podman=PodmanOutput()))
    async with site.opened() as repository:
        await change(repository, layers=[layer], put=[image])
    access = RepositoryAccess.open(name=NATIVE_NAME, storage=site.storage, keys=site.keys)
    remove_layers(access, [layer.digest], state=None)
    (problem,) = site.problems()
    assert "leads to a layer that is not in the repository" in problem
