"""Settings of hints, which the converter's settings have among their own."""

from pathlib import Path

from pydantic import ByteSize, PositiveFloat, PositiveInt

from services.common.settings import Settings

__all__ = ["HintsSettings"]


class HintsSettings(Settings):
    """What the converter's settings derive from, for webhooks."""

    hints_endpoints: Path | None = None
    """File (YAML) of those who may send webhooks or ask for images to be looked at, see docs/webhooks.md; nobody may
    without it. It is read again when it changes."""
    hints_pending: PositiveInt = 100_000
    """Most hints that may wait; whoever sends more is told to come back."""
    hints_patience: PositiveFloat = 0.4
    """Seconds that a webhook waits until its hints are on the disk; then its sender is told to come again, though they
    may get there yet."""
    hints_body_limit: ByteSize = ByteSize(1 << 20)
    """Largest body of a webhook."""
