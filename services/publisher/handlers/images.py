"""`/v1/images`: asking for images, following them, bringing them back, removing them.

Reading is open to whoever can reach the address. Changes need the publisher's token, or that of a project whose names
they are about: 401 without one, 403 for the names of others.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.image_name import ImageName
from services.common.image_outputs import ImageOutputs
from services.common.publisher_api.image_model import ImageRequest, ImagesChecked, OciDigestField
from services.publisher.handlers.access import Access, Caller
from services.publisher.handlers.answers import answer
from services.publisher.handlers.claimants import claimants
from services.publisher.handlers.document import read_document
from services.publisher.handlers.image_document import image_document, version_document
from services.publisher.handlers.image_selection import read_image_listing
from services.publisher.handlers.refusal import RequestRefusedError
from services.publisher.journal.flats import FlatJournal
from services.publisher.journal.image_model import (
    ImageRecord,
    ImageWish,
    VersionRecord,
)
from services.publisher.journal.images import ImageJournal
from services.publisher.journal.publishers import PublisherJournal
from services.publisher.journal.versions import VersionJournal
from services.publisher.pipeline.images.claims import ImageClaims
from services.publisher.pipeline.images.documents import check_places
from services.publisher.pipeline.images.outputs import OutputsReader
from services.registry.platform import Platform
from services.registry.reference import ImageReference
from services.repository.errors import ImageRefusedError
from services.repository.public_names import check_public_name

__all__ = ["ImagesHandler"]

_ASK_LIMIT: Final = 128 << 10
_CHECKED_LIMIT: Final = 1 << 20
"""Largest bodies, in bytes."""
_LONGEST_KEEP: Final = 1e10
_PLATFORM: Final = "linux/amd64"
"""What an image is wanted for where nobody says."""


class _Restore(BaseModel):
    """The body of a request to bring a version back."""

    model_config = ConfigDict(extra="forbid")

    digest: OciDigestField | None = None


class ImagesHandler:
    """Takes asks for images into the journal, and shows what became of them.

    Parameters
    ----------
    keep
        For how long what is replaced or removed is kept where a request does not say, in seconds.
    excuse
        Lets a request about an image go although its registry wants a pause.
    """

    def __init__(
        self,
        *,
        access: Access,
        images: ImageJournal,
        publishers: PublisherJournal,
        versions: VersionJournal,
        flats: FlatJournal,
        claims: ImageClaims,
        keep: float,
        excuse: Callable[[ImageReference], None],
    ) -> None:
        self._access = access
        self._images = images
        self._publishers = publishers
        self._versions = versions
        self._flats = flats
        self._claims = claims
        self._keep = keep
        self._excuse = excuse

    def routes(self) -> list[web.RouteDef]:
        """Give the routes."""
        return [
            web.get("/v1/images", self.list),
            web.post("/v1/images", self.ask),
            web.post("/v1/images/checked", self.checked),
            web.get("/v1/images/{name:.+}/versions", self.versions),
            web.post("/v1/images/{name:.+}/retry", self.retry),
            web.post("/v1/images/{name:.+}/restore", self.restore),
            web.get("/v1/images/{name:.+}", self.get),
            web.delete("/v1/images/{name:.+}", self.remove),
        ]

    async def ask(self, request: web.Request) -> web.Response:
        """Have an image published: 200 if it is already, with the digest that is named, else 202."""
        caller = await self._access.caller(request)
        wish = self._wish(await read_document(request, ImageRequest, limit=_ASK_LIMIT), caller)
        asked = await self._images.ask(wish)
        if not asked.done:
            self._claims.superseded(asked.record)
        return await self._shown(asked.record, status=200 if asked.done else 202)

    async def checked(self, request: web.Request) -> web.Response:
        """Take note that images are what they should be; name those that are not published as they are named."""
        caller = await self._access.caller(request)
        body = await read_document(request, ImagesChecked, limit=_CHECKED_LIMIT)
        named = {ImageName(image.name): Digest(image.digest) for image in body.images}
        for name in named:
            caller.demand(name)
        return answer({"unknown": await self._images.checked(named)})

    async def get(self, request: web.Request) -> web.Response:
        """Show one image."""
        return await self._shown(await self._images.get(_name(request)))

    async def list(self, request: web.Request) -> web.Response:
        """Show images in the order of their names, page by page: `state`, `prefix`, `after`, `limit`."""
        try:
            selection, after, limit = read_image_listing(request.query)
        except InvalidValueError as error:
            raise RequestRefusedError(400, str(error)) from None
        records = await self._images.page(selection, after=after, limit=limit)
        layers = await self._versions.layers((record.name, record.shown) for record in records if record.shown)
        names = await claimants(self._publishers, records)
        documents = [
            image_document(
                record,
                layers.get(record.name, ()),
                self._claims.work(record.name),
                publisher=names.get(record.claimed_by),
            )
            for record in records
        ]
        following = str(request.rel_url.update_query(after=records[-1].name)) if len(records) == limit else None
        return answer({"images": documents, "next": following})

    async def versions(self, request: web.Request) -> web.Response:
        """Show what a name has named."""
        name = _name(request)
        if await self._images.get(name) is None:
            raise _unknown()
        return answer({"versions": [version_document(version) for version in await self._versions.of(name)]})

    async def retry(self, request: web.Request) -> web.Response:
        """Try a failed image again now, or make sure that a published one still is in the repository."""
        name = await self._changed(request)
        record = await self._images.retry(name)
        if record is not None:
            self._excuse(ImageReference.parse(record.reference))
        self._claims.wake()
        return await self._shown(record, status=202)

    async def restore(self, request: web.Request) -> web.Response:
        """Have a version that was replaced or removed published again, the last one where none is named."""
        name = await self._changed(request)
        body = await read_document(request, _Restore, limit=_ASK_LIMIT)
        record = await self._images.get(name)
        if record is None:
            raise _unknown()
        version = _restorable(await self._versions.of(name), None if body.digest is None else Digest(body.digest))
        wish = ImageWish(
            name=name,
            reference=version.reference,
            digest=version.digest,
            platforms=version.platforms,
            project=record.project,
            priority=record.priority,
            verified=version.verified,
            keep=self._keep,
            outputs=version.outputs,
        )
        asked = await self._images.ask(wish)
        if not asked.done:
            self._claims.superseded(asked.record)
        return await self._shown(asked.record, status=202)

    async def remove(self, request: web.Request) -> web.Response:
        """Have an image removed by the next transaction; `keep_seconds` is how long it can be brought back at least."""
        name = await self._changed(request)
        record = await self._images.remove(name, keep=_keep(request.query, self._keep))
        if record is not None:
            self._claims.superseded(record)
        return await self._shown(record, status=202)

    async def _changed(self, request: web.Request) -> ImageName:
        """Return the name that a request is about, which whoever sends it may change."""
        caller = await self._access.caller(request)
        name = _name(request)
        caller.demand(name)
        return name

    def _wish(self, body: ImageRequest, caller: Caller) -> ImageWish:
        name = ImageName(body.name)
        caller.demand(name)
        reference = body.reference or str(name)
        caller.demand_source(reference)
        try:
            ImageReference.parse(reference)
            platforms = tuple(dict.fromkeys(map(Platform.parse, body.platforms or (_PLATFORM,))))
            check_places(name, platforms)
            _check_outputs(name, body.outputs)
        except InvalidValueError as error:
            raise RequestRefusedError(400, str(error)) from None
        digest = None if body.digest is None else Digest(body.digest)
        if name.tag is None:
            # What a digest names cannot be anything else.
            named = Digest.from_oci(name.version)
            if digest not in (None, named):
                raise RequestRefusedError(400, f"the name {name} is that of another digest than {named.oci}")
            digest = named
        keep = body.keep_replaced_seconds
        return ImageWish(
            name=name,
            reference=reference,
            digest=digest,
            platforms=tuple(map(str, platforms)),
            project=caller.name,
            priority=body.priority,
            verified=body.verified,
            keep=self._keep if keep is None else keep,
            outputs=body.outputs,
        )

    async def _shown(self, record: ImageRecord | None, *, status: int = 200) -> web.Response:
        if record is None:
            raise _unknown()
        layers = await self._versions.layers([(record.name, record.shown)] if record.shown else ())
        names = await claimants(self._publishers, [record])
        document = image_document(
            record, layers.get(record.name, ()), self._claims.work(record.name), publisher=names.get(record.claimed_by)
        )
        outputs = await OutputsReader(versions=self._versions, flats=self._flats).read(record)
        reports = {config.oci: report for config, report in outputs.reports.items()}
        return answer({**document, "places": outputs.places, "report": reports}, status=status)


def _check_outputs(name: ImageName, outputs: ImageOutputs) -> None:
    if outputs.flat is not None:
        try:
            check_public_name(name)
        except ImageRefusedError as error:
            raise InvalidValueError(str(error)) from None


def _unknown() -> RequestRefusedError:
    return RequestRefusedError(404, "no image of this name has been asked for")


def _name(request: web.Request) -> ImageName:
    try:
        return ImageName(request.match_info["name"])
    except InvalidValueError as error:
        raise RequestRefusedError(400, str(error)) from None


def _restorable(versions: Sequence[VersionRecord], digest: Digest | None) -> VersionRecord:
    for version in versions:
        gone = version.replaced_at is not None or version.removed_at is not None
        if version.digest == digest or (digest is None and gone):
            if version.collected_at is None:
                return version
            break
    raise RequestRefusedError(
        409, "there is no such version, or it has been collected: /v1/images/NAME/versions lists them"
    )


def _keep(query: Mapping[str, str], usual: float) -> float:
    text = query.get("keep_seconds")
    if text is None:
        return usual
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= _LONGEST_KEEP:
        raise RequestRefusedError(400, f"keep_seconds is a number from 0 to {_LONGEST_KEEP:.0f}")
    return seconds
