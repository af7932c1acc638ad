"""What is wrong with a layer follows from what repository, journal and bucket say of it."""

from datetime import UTC, datetime

import pytest

from services.common.digest import Digest
from services.common.object_store.model import StoredLayer
from services.publisher.consistency.model import ADVICE, Disagreement, Sighting
from services.publisher.journal.model import LayerRecord, LayerSource, LayerState
from services.repository.interface import ListedLayer
from tests.support.journal import layer_record

_DIGEST = Digest("a" * 64)
_STORED = StoredLayer(digest=_DIGEST, size=10, last_modified=datetime.now(UTC))
_LISTED = ListedLayer(digest=_DIGEST, whole=True, linked=True)
_DAMAGED = ListedLayer(digest=_DIGEST, whole=False, linked=True)
_UNLINKED = ListedLayer(digest=_DIGEST, whole=True, linked=False)


_PUBLISHED = layer_record(_DIGEST, LayerState.PUBLISHED)
_FETCHED = layer_record(_DIGEST, LayerState.PUBLISHED, source=LayerSource.REGISTRY)
_FAILED = layer_record(_DIGEST, LayerState.FAILED)
_ANNOUNCED = layer_record(_DIGEST, LayerState.ANNOUNCED)


@pytest.mark.parametrize(
    ("record", "listed", "stored", "expected"),
    [
        (_PUBLISHED, _LISTED, _STORED, None),
        (layer_record(_DIGEST, LayerState.PUBLISHED, archive_size=10), _LISTED, _STORED, None),
        (layer_record(_DIGEST, LayerState.PUBLISHED, archive_size=11), _LISTED, _STORED, Disagreement.OTHER_OBJECT),
        (_PUBLISHED, None, None, Disagreement.LOST),
        (_PUBLISHED, None, _STORED, Disagreement.NOT_IN_REPOSITORY),
        (_PUBLISHED, _DAMAGED, _STORED, Disagreement.NOT_WHOLE),
        (_PUBLISHED, _UNLINKED, _STORED, Disagreement.NOT_LINKED),
        (_PUBLISHED, _UNLINKED, None, Disagreement.NOT_LINKED),
        (_PUBLISHED, _LISTED, None, Disagreement.ARCHIVE_GONE),
        (_FAILED, None, _STORED, None),
        (_FAILED, None, None, Disagreement.NOT_IN_BUCKET),
        (_FAILED, _LISTED, _STORED, Disagreement.NOT_RECORDED),
        (_FAILED, _DAMAGED, _STORED, Disagreement.NOT_WHOLE),
        (_ANNOUNCED, None, _STORED, None),
        (_ANNOUNCED, None, None, Disagreement.NOT_IN_BUCKET),
        (_ANNOUNCED, _LISTED, _STORED, None),
        # It is in the spool, or on its way there.
        (layer_record(_DIGEST, LayerState.FETCHING), None, None, None),
        (layer_record(_DIGEST, LayerState.VERIFIED), None, None, None),
        (layer_record(_DIGEST, LayerState.PUBLISHING), None, None, None),
        # What came from a registry has no object.
        (_FETCHED, _LISTED, None, None),
        (_FETCHED, None, None, Disagreement.IMAGE_LAYER_GONE),
        (_FETCHED, _UNLINKED, None, Disagreement.NOT_LINKED),
        (None, None, _STORED, Disagreement.NOT_IN_JOURNAL),
        (None, _LISTED, _STORED, Disagreement.NOT_IN_JOURNAL),
        (None, _LISTED, None, Disagreement.ONLY_IN_REPOSITORY),
        (None, _DAMAGED, _STORED, Disagreement.NOT_WHOLE),
        # DUCC's layers have no sidecar.
        (None, _DAMAGED, None, None),
    ],
)
def test_a_layer_is_judged_by_what_each_says(
    record: LayerRecord | None, listed: ListedLayer | None, stored: StoredLayer | None, expected: Disagreement | None
) -> None:
    assert Sighting(digest=_DIGEST, record=record, listed=listed, stored=stored).judge() is expected


def test_there_is_advice_about_everything() -> None:
    assert set(ADVICE) == set(Disagreement)
