"""Moments as documents have them: ISO 8601, in UTC, always with milliseconds, so that they sort as text."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, PlainSerializer

__all__ = ["Time", "text_of", "time_text"]


def text_of(time: datetime) -> str:
    """Write a moment; one of another time zone in UTC."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds")


def time_text(seconds: float) -> str:
    """Write a moment that is given in seconds since the epoch."""
    return text_of(datetime.fromtimestamp(seconds, UTC))


Time = Annotated[AwareDatetime, PlainSerializer(text_of, return_type=str, when_used="json")]
"""A moment in a document, of any time zone; pydantic would leave out the fraction of a second that is none."""
