"""Signatures made by the real cosign, offline."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from services.converter.model import Origin, SignaturePolicy, VerificationKey
from tests.support.registries import run_program

__all__ = ["Cosign", "policy"]

_PASSWORD: Final = "of-the-keys"  # noqa: S105 - of a test
_PLAIN: Final = ("--allow-http-registry", "--allow-insecure-registry")


@dataclass(frozen=True, slots=True)
class Cosign:
    """cosign, with a directory of key pairs."""

    directory: Path

    async def run(self, *arguments: str, **environment: str) -> str:
        """Run it to its end, and return what it wrote."""
        env = {"PATH": "/usr/bin:/bin", "HOME": str(self.directory), "COSIGN_PASSWORD": _PASSWORD}
        return await run_program("cosign", *arguments, env=env | environment)

    async def make_key(self, name: str) -> VerificationKey:
        """Make an ECDSA key pair, which is what cosign makes."""
        await self.run("generate-key-pair", f"--output-key-prefix={self.directory / name}")
        return self.key(name)

    async def make_ed25519_key(self, name: str) -> VerificationKey:
        """Make another kind of key pair, and have cosign take it over."""
        await run_program("openssl", "genpkey", "-algorithm", "ed25519", "-out", str(self.directory / f"{name}.pem"))
        source = f"--key={self.directory / name}.pem"
        await self.run("import-key-pair", source, f"--output-key-prefix={self.directory / name}")
        return self.key(name)

    def key(self, name: str) -> VerificationKey:
        """Return a public key that has been made."""
        return VerificationKey(name=name, pem=(self.directory / f"{name}.pub").read_bytes())

    async def sign(self, image: str, key: str, *options: str) -> None:
        """Sign `HOST/REPOSITORY@DIGEST`, under the tag for signatures."""
        await self.run(
            "sign", f"--key={self.directory / key}.key", "--tlog-upload=false", "--yes", *_PLAIN, *options, image
        )

    async def sign_as_referrer(self, image: str, key: str) -> None:
        """Sign as OCI 1.1 has it."""
        arguments = ("--tlog-upload=false", "--yes", *_PLAIN, "--registry-referrers-mode=oci-1-1")
        await self.run("sign", f"--key={self.directory / key}.key", *arguments, image, COSIGN_EXPERIMENTAL="1")

    async def sign_with_rsa(self, image: str, name: str) -> VerificationKey:
        """Sign with a new RSA key, which cosign attaches and verifies, but does not keep itself."""
        private = rsa.generate_private_key(65537, 2048)
        pem = private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        payload = (await self.run("generate", *_PLAIN, image)).encode()
        signature = base64.b64encode(private.sign(payload, padding.PKCS1v15(), hashes.SHA256()))
        files = {f"{name}.payload": payload, f"{name}.signature": signature, f"{name}.pub": pem}
        for file, content in files.items():
            (self.directory / file).write_bytes(content)
        place = self.directory / name
        await self.run(
            "attach", "signature", f"--payload={place}.payload", f"--signature={place}.signature", *_PLAIN, image
        )
        await self.verify(image, name)
        return self.key(name)

    async def verify(self, image: str, key: str) -> None:
        """Have cosign verify; what it refuses fails the test."""
        await self.run("verify", f"--key={self.directory / key}.pub", "--insecure-ignore-tlog=true", *_PLAIN, image)


def policy(*keys: VerificationKey, identities: tuple[str, ...] = ()) -> SignaturePolicy:
    """Return a policy that wants one of these keys."""
    return SignaturePolicy(
        name="signed", patterns=("*",), keys=keys, identities=identities, origin=Origin("wishes.yaml", 3, 5)
    )
