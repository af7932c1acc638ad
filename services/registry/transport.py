"""Requests to a registry: with the user's proof, along redirects, again where that may help."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

import stamina
from yarl import URL

from services.common.digest import Digest
from services.registry.authentication import Authenticator
from services.registry.errors import (
    InsecureConnectionError,
    InvalidAnswerError,
    RegistryError,
    RegistryUnavailableError,
)
from services.registry.http import Answer, Http, place_of
from services.registry.limits import Limits
from services.registry.options import RegistryOptions
from services.registry.quick_heads import Busy
from services.registry.reference import ImageReference
from services.registry.refusals import refusal

__all__ = ["Request", "Transport"]

_REDIRECTS: Final = 5
"""Most redirects of one request; registries need one or two."""

_REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})

_PROOFS: Final = 2
"""How often one request is answered with a proof: the second time the first one had expired."""

_SHORTEST_WAIT: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked of a registry."""

    reference: ImageReference
    """The image that it is about; its registry is asked."""
    url: URL
    """The whole URL."""
    what: str
    """What it is for, for errors."""
    method: str = "GET"
    """The HTTP method."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers but for the user's proof."""
    data: bytes | None = None
    """The body."""

    @property
    def actions(self) -> str:
        """What right it needs."""
        return "pull" if self.method in ("GET", "HEAD") else "pull,push"

    @property
    def is_counted(self) -> bool:
        """Whether it is one of those that registries ration: the reading of a manifest."""
        return self.method == "GET" and "/manifests/" in self.url.raw_path

    @property
    def is_to_registry(self) -> bool:
        """Whether it goes to the registry itself, which alone gets the user's proof."""
        return self.url.origin() == URL(self.reference.api_url).origin()

    def redirected(self, location: str | None) -> Self:
        """Return the request that a redirect asks for.

        Raises
        ------
        InvalidAnswerError
            It asks for none.
        InsecureConnectionError
            It leads away from TLS.
        """
        try:
            # A signature is of the URL as it is written, so it is not written anew.
            url = self.url.join(URL(location or "", encoded=True))
            usable = location and url.scheme in ("http", "https") and url.host is not None and url.user is None
        except ValueError:
            usable = False
        if not usable:
            raise InvalidAnswerError(f"{self.what}: {place_of(self.url)} sends to no address that can be asked")
        if self.url.scheme == "https" and url.scheme != "https":
            raise InsecureConnectionError(
                f"{self.what}: {place_of(self.url)} sends to {place_of(url)}, away from TLS: it is not followed; "
                "ask those who run the registry"
            )
        return replace(self, url=url)


class Transport:
    """Sends requests to registries.

    Parameters
    ----------
    http
        Sends one.
    authenticator
        Proves the user.
    limits
        How many requests a registry gets at a time.
    options
        How often something is tried, and how long is waited.
    """

    def __init__(self, *, http: Http, authenticator: Authenticator, limits: Limits, options: RegistryOptions) -> None:
        self._http = http
        self._authenticator = authenticator
        self._limits = limits
        self.options = options

    def attempts(self) -> Any:  # noqa: ANN401 - stamina exports no name for it
        """Return attempts for `async for`, each a context manager; what may pass is tried again."""
        return stamina.retry_context(
            on=self.pause_after,
            attempts=self.options.attempts,
            timeout=self.options.longest_wait,
            wait_initial=0.2,
            wait_max=10.0,
            wait_jitter=0.2,
        )

    def pause_after(self, error: Exception) -> bool | float:
        """Return whether to try again, or after how many seconds the registry asks to."""
        if not isinstance(error, RegistryUnavailableError):
            return False
        if error.retry_after is None:
            return True
        if error.retry_after > self.options.longest_wait:
            return False
        return max(error.retry_after, _SHORTEST_WAIT)

    @asynccontextmanager
    async def send(self, request: Request, *, accepted: tuple[int, ...]) -> AsyncIterator[Answer]:
        """Send a request once, with whatever proof and redirects it takes.

        Raises
        ------
        RegistryError
            The status of the answer is not among the accepted ones, or there is none.
        """
        proofs, redirects = 0, 0
        while True:
            step: Request | None = None
            headers = self._headers(request)
            async with (
                self._turn(request),
                self._http.send(
                    request.method, request.url, what=request.what, headers=headers, data=request.data
                ) as answer,
            ):
                if request.is_to_registry:
                    self._limits.of(request.reference.authority).observe(answer)
                if answer.status in accepted:
                    yield answer
                    return
                if answer.status in _REDIRECT_STATUSES and request.method in ("GET", "HEAD"):
                    redirects += 1
                    step = request.redirected(answer.headers.get("Location"))
                elif answer.status == 401 and request.is_to_registry and proofs < _PROOFS:  # noqa: PLR2004
                    proofs += 1
                    step = request
                    challenges = answer.headers.getall("WWW-Authenticate", [])
                else:
                    raise await self._refusal(answer, request)
            if redirects > _REDIRECTS:
                raise InvalidAnswerError(
                    f"{request.what}: more than {_REDIRECTS} redirects, the last by {place_of(request.url)}: "
                    "ask those who run the registry"
                )
            if step is request:
                rejected = headers.get("Authorization")
                await self._authenticator.prove(
                    request.reference, request.actions, challenges, rejected=rejected, what=request.what
                )
            request = step

    async def quick_head(self, reference: ImageReference, *, accept: str, what: str) -> tuple[Digest, str] | None:
        """Ask for digest and media type by the shortest way; None where the ordinary one has to be taken.

        Raises
        ------
        RegistryUnavailableError
            The registry wants a longer pause than is waited for.
        """
        limits = self._limits.of(reference.authority)
        if not limits.is_calm or self._http.proxy(URL(reference.api_url)) is not None:
            return None
        proof = self._authenticator.proof(reference, "pull")
        async with limits.turn(what, counted=False):
            answer = await self._http.heads.head(reference, accept=accept, proof=proof)
        if isinstance(answer, Busy):
            limits.refused(answer.status, answer.retry_after)
            return None
        return answer

    def _turn(self, request: Request) -> AbstractAsyncContextManager[None]:
        if not request.is_to_registry:
            return nullcontext()  # a store that the registry sends to
        return self._limits.of(request.reference.authority).turn(request.what, counted=request.is_counted)

    def _headers(self, request: Request) -> dict[str, str]:
        headers = dict(request.headers)
        if request.is_to_registry:
            proof = self._authenticator.proof(request.reference, request.actions)
            if proof is not None:
                headers["Authorization"] = proof
        return headers

    async def _refusal(self, answer: Answer, request: Request) -> RegistryError:
        source = self._authenticator.source(request.reference, request.actions) if request.is_to_registry else None
        return await refusal(answer, secrets=self._authenticator.secrets(), source=source)
