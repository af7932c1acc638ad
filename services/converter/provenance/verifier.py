"""Whether an image satisfies a signature policy.

In this order, so that nothing that is not proven yet decides anything: the signature's manifest and its payload, by
their digests; the signature of the payload's bytes, by one of the policy's keys; what the payload says, that is the
image's digest and its repository. cosign itself does not look at the last one: there, an image that is copied with its
signature to another repository, or under the name of a newer one, is as good as where it came from.
"""

import asyncio
import fnmatch
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.converter.model import SignaturePolicy
from services.converter.provenance.errors import (
    DamagedSignatureError,
    ForeignSignatureError,
    ProvenanceError,
    ProvenanceUnknownError,
    SignatureMissingError,
    UntrustedSignatureError,
)
from services.converter.provenance.finding import SignatureFinder
from services.converter.provenance.keys import TrustedKey
from services.converter.provenance.model import FoundSignature, Verified
from services.converter.provenance.payload import Payload
from services.registry.client import RegistryClient
from services.registry.errors import DigestMismatchError, ImageMissingError, RegistryError
from services.registry.reference import ImageReference

__all__ = ["Verifier"]

_SIGNATURES: Final = 256
"""Most signatures of one image that are looked at."""
_SHOWN: Final = 3
"""Most that is told of one kind of trouble."""


class Verifier:
    """Verifies images.

    Parameters
    ----------
    now
        Gives the time, in seconds since the epoch.
    """

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self._now = now

    async def verify(
        self, client: RegistryClient, reference: ImageReference, digest: Digest, policy: SignaturePolicy
    ) -> Verified:
        """Verify that an image has been signed as a policy wants it.

        Parameters
        ----------
        client
            Reads the signatures.
        reference
            The image; its repository is the one that it must have been signed for, unless the policy allows others.
        digest
            SHA-256 of its manifest or index, as its tag named it when it was last looked at. From now on the image is
            asked for by this digest: what its tag names may be something else by now.
        policy
            The policy.

        Raises
        ------
        ProvenanceUnknownError
            The registry failed.
        ProvenanceError
            The image does not satisfy the policy; the text says what is missing and what to do.
        """
        keys = [TrustedKey.read(key) for key in policy.keys]
        question = _Question(reference=reference, digest=digest, policy=policy, keys=keys)
        finder = SignatureFinder(client=client, reference=reference, digest=digest)
        try:
            async with aclosing(finder.found()) as signatures:
                async for signature in signatures:
                    question.looked_at += 1
                    if question.looked_at > _SIGNATURES:
                        finder.damaged.append(f"more than {_SIGNATURES} signatures, of which the first were read")
                        break
                    answer = await self._look(client, question, signature)
                    if answer is not None:
                        return answer
        except RegistryError as error:
            raise ProvenanceUnknownError(
                f"whether {question.image} is signed is not known, since the registry fails: {error}"
            ) from error
        question.damaged += finder.damaged
        raise question.refusal(bundles=finder.bundles)

    async def _look(self, client: RegistryClient, question: "_Question", found: FoundSignature) -> Verified | None:
        """Return what a signature proves; note what is wrong with it if that is nothing."""
        payload = await question.payload(client, found)
        if payload is None:
            return None
        # Some hundred signatures by some keys are a while.
        key = await asyncio.to_thread(question.signer, found.signature, payload)
        if key is None:
            question.untrusted += 1
            return None
        identity = question.signed_identity(payload, key)
        if identity is None:
            return None
        return Verified(
            policy=question.policy.name,
            key=key.name,
            fingerprint=key.fingerprint,
            storage=found.storage,
            signature_manifest=found.manifest,
            identity=identity,
            digest=question.digest,
            verified_at=self._now(),
        )


@dataclass(slots=True, kw_only=True)
class _Question:
    """One image and one policy, and what has been found so far."""

    reference: ImageReference
    digest: Digest
    policy: SignaturePolicy
    keys: Sequence[TrustedKey]
    looked_at: int = 0
    untrusted: int = 0
    """Signatures by other keys."""
    foreign: list[str] = field(default_factory=list)
    """What good signatures are for instead."""
    damaged: list[str] = field(default_factory=list)
    _payloads: dict[Digest, bytes | None] = field(default_factory=dict)

    @property
    def image(self) -> str:
        """The image, for people."""
        return f"{_repository_of(self.reference)}@{self.digest.oci}"

    async def payload(self, client: RegistryClient, found: FoundSignature) -> bytes | None:
        """Return what was signed; several signatures may be of the same."""
        if found.payload not in self._payloads:
            try:
                content = await client.content(self.reference, found.payload, found.payload_size)
                self._payloads[found.payload] = content
            except (DigestMismatchError, ImageMissingError) as error:
                self._payloads[found.payload] = None
                self.damaged.append(f"the payload of a signature: {error}")
        return self._payloads[found.payload]

    def signer(self, signature: bytes, payload: bytes) -> TrustedKey | None:
        """Return the key that a signature was made with."""
        return next((key for key in self.keys if key.verifies(signature, payload)), None)

    def signed_identity(self, content: bytes, key: TrustedKey) -> str | None:
        """Return what the signer called the image, if the payload is about this image."""
        try:
            payload = Payload.read(content)
        except InvalidValueError as error:
            self.damaged.append(f"what {key.name} signed: {error}")
            return None
        if payload.digest != self.digest:
            self.foreign.append(f"for {payload.digest.oci} (by {key.name})")
            return None
        if not self._allows(payload.identity):
            self.foreign.append(f"for an image of {payload.identity[:300]!r} (by {key.name})")
            return None
        return payload.identity

    def _allows(self, identity: str) -> bool:
        """Whether an image may be signed under a name."""
        try:
            named = ImageReference.parse(identity)
        except InvalidValueError:
            return False
        names = (identity, _repository_of(named))
        if not self.policy.identities:
            return (named.authority.lower(), named.repository) == (
                self.reference.authority.lower(),
                self.reference.repository,
            )
        return any(fnmatch.fnmatchcase(name, glob) for name in names for glob in self.policy.identities)

    def refusal(self, *, bundles: int) -> ProvenanceError:
        """Return why the image does not satisfy the policy, by what came closest."""
        wanted = f"the policy {self.policy.name} ({self.policy.origin})"
        keys = ", ".join(key.name for key in self.keys)
        sign = f"sign it: cosign sign --key KEY {self.image}"
        if self.foreign:
            return ForeignSignatureError(
                f"{self.image} has no signature of its own, but one {'; one '.join(self.foreign[:_SHOWN])}: "
                f"it has been copied here with its signature. If that is meant, allow the name in the identities of "
                f"{wanted}; else {sign}"
            )
        if self.untrusted:
            return UntrustedSignatureError(
                f"{self.image} is signed, but by none of the keys of {wanted}, which are {keys}: "
                f"{sign} with one of them, or add the signer's key to the policy"
            )
        if self.damaged:
            return DamagedSignatureError(
                f"{self.image}: the signatures cannot be read ({'; '.join(self.damaged[:_SHOWN])}): {sign} again"
            )
        form = ""
        if bundles:
            form = (
                f" but {bundles} Sigstore bundles, which do not say what repository an image was signed for "
                "(cosign makes other signatures with --new-bundle-format=false)"
            )
        return SignatureMissingError(f"{self.image} has no signature{form}, and {wanted} wants one by {keys}: {sign}")


def _repository_of(reference: ImageReference) -> str:
    """Write the repository as people do."""
    return replace(reference, tag="any", digest=None).name.removesuffix(":any")
