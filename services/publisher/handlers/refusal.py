"""Requests that are not taken, and with which status that is answered."""

from services.publisher.errors import PublisherError

__all__ = ["RequestRefusedError"]


class RequestRefusedError(PublisherError):
    """A request is not taken.

    Parameters
    ----------
    status
        The HTTP status that says so.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
