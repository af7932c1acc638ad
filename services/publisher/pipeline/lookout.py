"""Looks for what other publishers have been told: all of them take notifications and asks, in one journal."""

import asyncio
from typing import Final

from services.publisher.pipeline.claims import Claims
from services.publisher.pipeline.gate import Gate
from services.publisher.pipeline.images.claims import ImageClaims

__all__ = ["Lookout"]

_LOOK: Final = 1.0
"""Seconds between two looks."""


class Lookout:
    """Looks at the journal all the time.

    Parameters
    ----------
    gate
        Takes up pauses.
    claims, images
        Look for what is due, if they have nothing to do.
    """

    def __init__(self, *, gate: Gate, claims: Claims, images: ImageClaims) -> None:
        self._gate = gate
        self._claims = claims
        self._images = images

    async def run(self) -> None:
        """Look until cancelled.

        Raises
        ------
        JournalError
            The journal failed.
        """
        while True:
            await self._gate.load()
            self._claims.wake()
            self._images.wake()
            await asyncio.sleep(_LOOK)
