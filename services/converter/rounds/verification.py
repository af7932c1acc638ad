"""Whether an image satisfies all signature policies that apply to it."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from pydantic import JsonValue

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.converter.metrics import Metrics
from services.converter.model import SignaturePolicy, Wish
from services.converter.provenance.applying import applicable
from services.converter.provenance.errors import ProvenanceError
from services.registry.client import RegistryClient
from services.registry.reference import ImageReference

__all__ = ["PolicyVerification", "PolicyVerifier", "Proof"]


class Proof(Protocol):
    """What was verified."""

    def document(self) -> Mapping[str, JsonValue]:
        """Return what is recorded of it."""


class PolicyVerifier(Protocol):
    """Verifies one policy; `provenance.Verifier` is one."""

    async def verify(
        self, client: RegistryClient, reference: ImageReference, digest: Digest, policy: SignaturePolicy
    ) -> Proof:
        """Verify that an image satisfies a policy; raises a `SuiteError` where that cannot be told for certain."""


class PolicyVerification:
    """Verifies all policies that apply.

    Parameters
    ----------
    client
        Reads signatures.
    verifier
        Verifies one policy.
    metrics
        Counts what does not satisfy one.
    """

    def __init__(self, *, client: RegistryClient, verifier: PolicyVerifier, metrics: Metrics) -> None:
        self._client = client
        self._verifier = verifier
        self._metrics = metrics

    async def verify(
        self, name: ImageName, reference: ImageReference, wishes: Sequence[Wish], policies: Sequence[SignaturePolicy]
    ) -> dict[str, JsonValue] | None:
        """Return what was verified of the image with the reference's digest; None where no policy applies.

        Raises
        ------
        SuiteError
            The image does not satisfy a policy, or it cannot be told whether it does.
        """
        if reference.digest is None:
            raise ValueError(f"an image is verified by its digest: {reference.name}")
        proofs: list[JsonValue] = []
        for policy in applicable(name, wishes, policies):
            try:
                proof = await self._verifier.verify(self._client, reference, reference.digest, policy)
            except ProvenanceError as error:
                self._metrics.failures.labels(name.registry, f"signature_{error.word}").inc()
                raise
            proofs.append(dict(proof.document()))
        return {"policies": proofs} if proofs else None
