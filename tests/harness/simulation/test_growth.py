from pathlib import Path

from harness.simulation.growth import grow
from services.common.layout import LayerLayout


def test_links_in_the_root_are_what_grows(tmp_path: Path) -> None:
    few, more = grow(tmp_path / "flat", LayerLayout.FLAT, (10, 400))
    # What docs/scale.md calculates with: some hundred bytes for each link. The shelves, 256 at most, are rows as well.
    layers = more.layers - few.layers
    assert 100 < (more.root - few.root) / layers < 200
    assert more.root_expanded > more.root
    assert few.batch.written > few.one.written > 1000
