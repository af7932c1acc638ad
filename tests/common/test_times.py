import json
from datetime import UTC, datetime

import pytest
from pydantic import TypeAdapter, ValidationError

from services.common.times import Time, time_text

_TIME: TypeAdapter[datetime] = TypeAdapter(Time)


def test_moments_sort_as_text() -> None:
    seconds = [0.0, 1.0, 1.042, 1.5, 2.0, 10.0, 1_796_000_000.0, 1_796_000_000.001]
    texts = [time_text(each) for each in seconds]
    assert texts == sorted(texts)
    assert len({len(text) for text in texts}) == 1
    assert texts[1] == "1970-01-01T00:00:01.000+00:00"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("2026-11-30T14:00:37.042+00:00", "2026-11-30T14:00:37.042+00:00"),
        ("2026-11-30T14:00:37Z", "2026-11-30T14:00:37.000+00:00"),
        ("2026-11-30T14:00:37.5+01:00", "2026-11-30T13:00:37.500+00:00"),
    ],
)
def test_a_moment_of_a_document_is_written_alike(text: str, written: str) -> None:
    time = _TIME.validate_json(json.dumps(text))
    assert time.astimezone(UTC).tzinfo is UTC
    assert json.loads(_TIME.dump_json(time)) == written


def test_a_moment_without_a_time_zone_is_none() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        _TIME.validate_json('"2026-11-30T14:00:37"')
