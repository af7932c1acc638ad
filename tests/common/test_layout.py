from services.common.digest import Digest
from services.common.layout import LayerLayout, layer_home, layer_tree, sidecar_path

DIGEST = Digest("ab" + "0" * 62)


def test_every_layer_has_one_home() -> None:
    assert layer_home(DIGEST) == f".layers/ab/{DIGEST}"
    assert layer_tree(DIGEST) == f".layers/ab/{DIGEST}/layerfs"
    assert sidecar_path(DIGEST) == f".layers/ab/{DIGEST}/layer.json"


def test_a_layout_decides_the_path_that_descriptors_name() -> None:
    assert LayerLayout("flat").path(DIGEST) == DIGEST
    assert LayerLayout("ducc").path(DIGEST) == layer_tree(DIGEST)
