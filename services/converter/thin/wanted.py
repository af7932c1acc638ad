"""Which thin images a published image should have."""

import structlog

from services.common.errors import InvalidValueError
from services.converter.rounds.plan import Plan
from services.converter.state.model import Copy, ThinRecord
from services.converter.state.state import State
from services.converter.wishlist.output_names import output_name

__all__ = ["want_thin_images"]

_log = structlog.get_logger(__name__)


async def want_thin_images(copy: Copy, *, plan: Plan, state: State) -> int:
    """Record the thin images of a copy that has been published; return how many are to be pushed.

    Raises
    ------
    StateError
        The state failed.
    """
    planned = plan.get(copy.wish)
    if planned is None:
        return 0
    wanted = 0
    for target in planned.wish.thin:
        if target.repository != copy.repository:
            continue
        digest = None if copy.name.tag is not None else copy.wanted
        try:
            reference = output_name(target.template, planned.wish, copy.name, digest)
        except InvalidValueError as error:
            _log.warning("image can have no thin image", image=copy.name, reason=str(error))
            continue
        wanted += await state.thin.wanted(
            ThinRecord(
                reference=reference,
                name=copy.name,
                repository=copy.repository,
                layout=target.layout,
                platforms=planned.wish.platforms,
                digest=copy.wanted,
                attempts=0,
            )
        )
    return wanted
