"""The publishers of the CVMFS repositories, one for each."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Self

import structlog
from pydantic import SecretStr

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.publisher_api import PublisherApi, PublisherApiError
from services.common.repository_name import RepositoryName
from services.converter.state.state import State

__all__ = ["Publishers"]

_log = structlog.get_logger(__name__)


class Publishers:
    """Talks to the publishers; a context manager that holds the connections.

    Parameters
    ----------
    places
        The URL of the publisher of each repository, and the token that it takes.
    state
        What was asked of them.
    """

    def __init__(self, *, places: Mapping[RepositoryName, tuple[str, SecretStr | None]], state: State) -> None:
        self._apis = {name: PublisherApi(url=url, token=token) for name, (url, token) in places.items()}
        self._state = state
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for api in self._apis.values():
            await self._stack.enter_async_context(api)
        return self

    async def __aexit__(self, *_failure: object) -> None:
        await self._stack.aclose()

    @property
    def repositories(self) -> tuple[RepositoryName, ...]:
        """The repositories that there are publishers of."""
        return tuple(self._apis)

    def get(self, repository: RepositoryName) -> PublisherApi | None:
        """Return the publisher of a repository, if one is set."""
        return self._apis.get(repository)

    async def confirm(self, checked: Mapping[RepositoryName, Sequence[tuple[ImageName, Digest]]]) -> None:
        """Tell every publisher which images were found unchanged; what one does not have is wanted anew.

        A publisher that does not answer is told at the next poll.
        """
        for repository, images in checked.items():
            api = self._apis.get(repository)
            if api is None:
                continue  # said where the image is asked for
            try:
                unknown = await api.images.checked(images)
            except PublisherApiError as error:
                _log.warning("publisher cannot be told what is unchanged", repository=repository, reason=str(error))
                continue
            lost = await self._state.copies.lost(repository, unknown) if unknown else 0
            if lost:
                _log.warning("publisher does not have what it had", repository=repository, images=lost)
