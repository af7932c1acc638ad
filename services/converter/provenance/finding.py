"""Where cosign puts signatures, and reading them from there."""

import base64
import binascii
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from typing import Final

from pydantic import ValidationError

from services.common.digest import Digest
from services.converter.provenance.model import FoundSignature, Storage
from services.converter.provenance.payload import PAYLOAD_LIMIT
from services.registry.client import RegistryClient
from services.registry.documents import DescriptorWire, ManifestWire
from services.registry.errors import DigestMismatchError, UnsupportedImageError
from services.registry.images import RawManifest
from services.registry.reference import ImageReference
from services.registry.referrers import Referrer

__all__ = ["SignatureFinder"]

_SIMPLE_SIGNING: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
_REFERRER: Final = "application/vnd.dev.cosign.artifact.sig.v1+json"
_BUNDLE = re.compile(r"application/vnd\.dev\.sigstore\.bundle[.;+].*")
_SIGNATURE: Final = "dev.cosignproject.cosign/signature"

_SIGNATURE_LENGTH: Final = 4096
"""Longest signature, in characters of base64; one of RSA with 8192 bits has 1366."""
_DAMAGE: Final = (DigestMismatchError, UnsupportedImageError)
"""What is wrong with a document, and not with the registry's way of giving it."""
_MANIFESTS: Final = 64
"""Most manifests of signatures that are read for one image."""


@dataclass(slots=True)
class SignatureFinder:
    """Finds the signatures of one image."""

    client: RegistryClient
    reference: ImageReference
    """The image; its digest is not looked at."""
    digest: Digest
    """SHA-256 of the image's manifest or index."""
    damaged: list[str] = field(default_factory=list)
    """What was there and could not be read."""
    bundles: int = 0
    """How many Sigstore bundles there are, which are not read: they do not say which repository was signed for."""

    async def found(self) -> AsyncGenerator[FoundSignature, None]:
        """Give the signatures, those of the tag first.

        Raises
        ------
        RegistryError
            The registry failed or refused.
        """
        for signature in await self._of_tag():
            yield signature
        for referrer in await self._signing_referrers():
            for signature in await self._of_referrer(referrer):
                yield signature

    async def _of_tag(self) -> list[FoundSignature]:
        tag = f"sha256-{self.digest}.sig"
        manifest = await self._manifest(replace(self.reference, tag=tag, digest=None), tag)
        return [] if manifest is None else self._read(manifest, Storage.TAG, tag)

    async def _signing_referrers(self) -> list[Referrer]:
        try:
            referrers = await self.client.referrers(self.reference, self.digest)
        except _DAMAGE as error:
            self.damaged.append(f"the list of what refers to the image: {error}")
            return []
        self.bundles = sum(_BUNDLE.fullmatch(each.artifact_type) is not None for each in referrers)
        signing = [each for each in referrers if each.artifact_type == _REFERRER]
        if len(signing) > _MANIFESTS:
            self.damaged.append(f"{len(signing)} manifests of signatures, of which the first {_MANIFESTS} were read")
        return signing[:_MANIFESTS]

    async def _of_referrer(self, referrer: Referrer) -> list[FoundSignature]:
        name = referrer.digest.oci
        manifest = await self._manifest(replace(self.reference, tag=None, digest=referrer.digest), name)
        return [] if manifest is None else self._read(manifest, Storage.REFERRER, name)

    async def _manifest(self, reference: ImageReference, name: str) -> RawManifest | None:
        try:
            return await self.client.artifact(reference)
        except _DAMAGE as error:
            self.damaged.append(f"the manifest {name}: {error}")
            return None

    def _read(self, manifest: RawManifest, storage: Storage, name: str) -> list[FoundSignature]:
        try:
            layers = ManifestWire.model_validate_json(manifest.content).layers
        except ValidationError:
            self.damaged.append(f"the manifest {name} is not of its form")
            return []
        found = []
        for layer in layers:
            if layer.media_type != _SIMPLE_SIGNING:
                continue
            signature = _signature_of(layer)
            if signature is None or layer.size > PAYLOAD_LIMIT:
                self.damaged.append(f"a signature in {name} is not of its form")
                continue
            found.append(
                FoundSignature(
                    storage=storage,
                    manifest=manifest.digest,
                    payload=Digest.from_oci(layer.digest),
                    payload_size=layer.size,
                    signature=signature,
                )
            )
        return found


def _signature_of(layer: DescriptorWire) -> bytes | None:
    text = layer.annotations.get(_SIGNATURE)
    if not text or len(text) > _SIGNATURE_LENGTH:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
