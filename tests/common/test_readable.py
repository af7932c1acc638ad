import pytest

from services.common.readable import readable_size, readable_span


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (5 << 30, "5.0 GiB"),
        (3 << 50, "3072.0 TiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert readable_size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (0, "0 s"), (0.4, "<1 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (86400 * 30, "30 d")],
)
def test_ages(seconds: float, text: str) -> None:
    assert readable_span(seconds) == text
