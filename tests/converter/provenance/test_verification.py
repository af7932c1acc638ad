"""An image must satisfy every policy that applies to it."""

from dataclasses import replace

import pytest

from services.common.image_name import ImageName
from services.converter.metrics import Metrics
from services.converter.model import VerificationKey
from services.converter.provenance.errors import UntrustedSignatureError
from services.converter.provenance.verifier import Verifier
from services.converter.rounds.verification import PolicyVerification
from services.registry.client import RegistryClient
from services.registry.reference import ImageReference
from tests.support.cosign import Cosign, policy
from tests.support.registries import RegistryServer

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_all_policies_must_be_satisfied_and_what_does_not_is_counted(
    signed: tuple[ImageReference, RegistryServer, VerificationKey], client: RegistryClient, cosign: Cosign
) -> None:
    reference, _, key = signed
    name, metrics = ImageName(f"{reference.authority}/{reference.repository}:1"), Metrics()
    verification = PolicyVerification(client=client, verifier=Verifier(), metrics=metrics)
    good = policy(key)
    again = replace(good, name="again")
    document = await verification.verify(name, reference, [], [good, again])
    assert document is not None
    assert [each["policy"] for each in document["policies"]] == ["signed", "again"]  # type: ignore[union-attr, index, call-overload]
    other = policy(cosign.key("other"))
    assert await verification.verify(name, reference, [], [replace(other, patterns=("quay.io/*",))]) is None
    with pytest.raises(UntrustedSignatureError):
        await verification.verify(name, reference, [], [good, other])
    labels = {"registry": name.registry, "what": "signature_untrusted"}
    assert metrics.registry.get_sample_value("converter_failures_total", labels) == 1
