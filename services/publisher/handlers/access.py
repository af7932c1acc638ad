"""Who may change which images: whoever has the publisher's token all of them, a project its own."""

from dataclasses import dataclass

from aiohttp import web

from services.common.errors import InvalidValueError
from services.common.image_name import ImageName
from services.publisher.handlers.refusal import RequestRefusedError
from services.publisher.handlers.token import TokenCheck, TokenRefusedError, of_header
from services.publisher.projects import Project, Projects

__all__ = ["Access", "Caller", "NameRefusedError"]


class NameRefusedError(RequestRefusedError):
    """A project asks for an image that is not its own."""

    def __init__(self, text: str) -> None:
        super().__init__(403, text)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request."""

    project: Project | None
    """None for an operator, who may do everything."""

    @property
    def name(self) -> str | None:
        """The project's name."""
        return None if self.project is None else self.project.name

    def demand(self, name: ImageName) -> None:
        """Raise unless an image is the caller's.

        Raises
        ------
        NameRefusedError
            It is not.
        """
        if self.project is not None and not self.project.may_have(name):
            raise NameRefusedError(f"project {self.project.name} may not change {name}: its names are others")

    def demand_source(self, reference: str) -> None:
        """Raise unless the caller may have an image published that is pulled from somewhere.

        A project may pull what it may name, so that it gets nothing by the publisher's credentials that is not its own.

        Raises
        ------
        NameRefusedError
            It may not.
        """
        if self.project is None:
            return
        try:
            name = ImageName(reference)
        except InvalidValueError:
            raise NameRefusedError(
                f"project {self.project.name} names references in full (REGISTRY/REPOSITORY:TAG): {reference[:300]!r}"
            ) from None
        if not self.project.may_have(name):
            raise NameRefusedError(f"project {self.project.name} may not pull {name}: its names are others")


class Access:
    """Finds out who sends a request."""

    def __init__(self, *, token: TokenCheck, projects: Projects) -> None:
        self._token = token
        self._projects = projects

    async def caller(self, request: web.BaseRequest) -> Caller:
        """Return who sends a request.

        Raises
        ------
        TokenRefusedError
            It shows no token that is known.
        """
        if self._token.passes(request):
            return Caller(None)
        project = await self._projects.of_token(of_header(request.headers.get("Authorization", "")))
        if project is None:
            raise TokenRefusedError
        return Caller(project)
