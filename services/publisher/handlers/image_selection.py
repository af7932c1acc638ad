"""Which images a query asks for, and where their list goes on."""

from typing import Final

from multidict import MultiMapping

from services.common.errors import InvalidValueError
from services.publisher.handlers.selection import TRUTH
from services.publisher.journal.image_model import ImageSelection, ImageState

__all__ = ["read_image_listing"]

_PAGE: Final = 100
_MAX_PAGE: Final = 1000
_TEXT_LENGTH: Final = 512


def read_image_listing(query: MultiMapping[str]) -> tuple[ImageSelection, str, int]:
    """Read which images a query asks for, after which one, and how many.

    `state` (any number of times), `refused` and `prefix` (of the name) select images, `after` and `limit` a page of
    them.

    Raises
    ------
    InvalidValueError
        A value is not of its form.
    """
    states = [state for state in query.getall("state", []) if state]
    prefix, after, limit = query.get("prefix", ""), query.get("after", ""), query.get("limit", str(_PAGE))
    refused = query.get("refused", "")
    if refused and refused not in TRUTH:
        raise InvalidValueError("refused is true or false")
    if not set(states) <= set(ImageState):
        raise InvalidValueError(f"state is one of {', '.join(ImageState)}")
    if max(len(prefix), len(after)) > _TEXT_LENGTH:
        raise InvalidValueError(f"prefix and after have at most {_TEXT_LENGTH} characters")
    if not (limit.isascii() and limit.isdigit() and len(limit) <= len(str(_MAX_PAGE)) and 1 <= int(limit) <= _MAX_PAGE):
        raise InvalidValueError(f"limit is between 1 and {_MAX_PAGE}")
    chosen = tuple(ImageState(state) for state in dict.fromkeys(states))
    return ImageSelection(states=chosen, refused=TRUTH.get(refused), prefix=prefix), after, int(limit)
