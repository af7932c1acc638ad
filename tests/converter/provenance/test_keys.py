"""Which keys verify what; signatures are made by `cryptography`, as by those who keep keys where cosign cannot sign."""

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from services.converter.model import VerificationKey
from services.converter.provenance.errors import PolicyError
from services.converter.provenance.keys import TrustedKey

_PAYLOAD = b"what was signed"


def _trusted(public: ec.EllipticCurvePublicKey) -> TrustedKey:
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return TrustedKey.read(VerificationKey(name="key", pem=pem))


@pytest.mark.parametrize(
    ("curve", "verified"),
    [
        (ec.SECP256R1(), {"sha256"}),
        (ec.SECP384R1(), {"sha256", "sha384"}),
        (ec.SECP521R1(), {"sha256", "sha512"}),
    ],
    ids=lambda value: value.name if isinstance(value, ec.EllipticCurve) else "",
)
def test_keys_on_every_curve_verify_with_the_hashes_of_theirs(curve: ec.EllipticCurve, verified: set[str]) -> None:
    private = ec.generate_private_key(curve)
    key = _trusted(private.public_key())
    algorithms: list[hashes.HashAlgorithm] = [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()]
    signatures = {each.name: private.sign(_PAYLOAD, ec.ECDSA(each)) for each in algorithms}
    assert {name for name, signature in signatures.items() if key.verifies(signature, _PAYLOAD)} == verified
    assert not any(key.verifies(signature, _PAYLOAD + b".") for signature in signatures.values())
    other = _trusted(ec.generate_private_key(curve).public_key())
    assert not any(other.verifies(signature, _PAYLOAD) for signature in signatures.values())
    assert not key.verifies(b"no signature", _PAYLOAD)


@pytest.mark.parametrize("curve", [ec.SECP224R1(), ec.SECP256K1(), ec.BrainpoolP384R1()], ids=lambda curve: curve.name)
def test_keys_on_other_curves_are_refused(curve: ec.EllipticCurve) -> None:
    with pytest.raises(PolicyError, match="use ECDSA on P-256, P-384 or P-521"):
        _trusted(ec.generate_private_key(curve).public_key())
