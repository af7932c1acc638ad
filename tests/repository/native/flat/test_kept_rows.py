"""Rows of layers are kept within bounds, those that were used last."""

import pytest

from services.repository.native.flat import kept_rows
from services.repository.native.flat.kept_rows import KeptRows
from services.repository.native.records import ContentHash

_NAMES = [ContentHash.of(bytes([number])) for number in range(4)]


def test_those_that_were_used_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_rows, "_MOST", 30)
    kept = KeptRows()
    for name in _NAMES[:3]:
        kept.put(name, bytes(10))
    assert kept.get(_NAMES[0]) == bytes(10)
    kept.put(_NAMES[3], bytes(10))
    assert [kept.get(name) is not None for name in _NAMES] == [True, False, True, True]
    kept.put(_NAMES[3], bytes(1))  # in place of what it was
    kept.put(_NAMES[1], bytes(9))
    assert [kept.get(name) is not None for name in _NAMES] == [True, True, True, True]


def test_a_layer_that_would_take_the_place_of_all_others_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_rows, "_MOST", 30)
    kept = KeptRows()
    kept.put(_NAMES[0], bytes(10))
    kept.put(_NAMES[1], bytes(31))
    assert (kept.get(_NAMES[0]), kept.get(_NAMES[1])) == (bytes(10), None)
