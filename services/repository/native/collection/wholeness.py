"""Whether all that a prepared layer consists of is still there, after a collection by another machine."""

import tempfile
from itertools import islice
from pathlib import Path
from typing import Final

from services.repository.native.collection.ledger import Ledger
from services.repository.native.collection.names import ObjectName
from services.repository.native.collection.reaching import reach_tree
from services.repository.native.errors import ObjectMissingError
from services.repository.native.storage.interface import Storage
from services.repository.native.writer.catalog import NestedCatalog

__all__ = ["check_whole"]

_AT_ONCE: Final = 4096
"""Objects that are looked for at a time."""


def check_whole(storage: Storage, layer: NestedCatalog) -> None:
    """Look for every object of a layer (blocking), some hundred a second where the repository is in a bucket.

    Raises
    ------
    ObjectMissingError
        One is not there any more.
    StorageError, BrokenRepositoryError
        It cannot be told.
    """
    with tempfile.TemporaryDirectory(prefix="wholeness-") as directory, Ledger(Path(directory)) as ledger:
        try:
            reach_tree(storage, layer.name, ledger, path=layer.path)
        except ObjectMissingError as error:
            raise ObjectMissingError(f"its catalogs have been collected since it was prepared: {error}") from error
        reached = ledger.reached()
        while names := list(islice(reached, _AT_ONCE)):
            missing = storage.missing([ObjectName.unpack(name).path for name in names])
            if missing:
                raise ObjectMissingError(
                    f"{len(missing)} objects of it have been collected since it was prepared, such as {missing[0]}"
                )
