"""Walks that fail on the way."""

from pathlib import Path

import pytest

from services.common.layout import layer_home
from services.repository.native.errors import ObjectMissingError
from services.repository.native.records import ObjectKind
from tests.support.native import NativeSite, publish
from tests.support.publisher import make_layer


async def test_a_walk_that_fails_has_no_catalog_open_any_more(site: NativeSite, tmp_path: Path) -> None:
    """What is read of a closed catalog later, when nobody looks, is an error that nobody can catch: pytest shows it."""
    layer = make_layer(tmp_path, "layer")
    async with site.opened() as repository:
        await publish(repository, layer)
    with site.newest() as newest:
        catalog = newest.catalog_of(f"/{layer_home(layer.digest)}".encode())
        (site.root / catalog.hash.path(ObjectKind.CATALOG)).unlink()
    with pytest.raises(ObjectMissingError) as raised, site.newest() as newest:
        list(newest.walk())
    assert catalog.hash.path(ObjectKind.CATALOG) in str(raised.value)
