"""What was verified of an image."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from pydantic import JsonValue

from services.common.digest import Digest

__all__ = ["FoundSignature", "Storage", "Verified"]


class Storage(StrEnum):
    """Where a signature was found."""

    TAG = "tag"
    """Under cosign's own tag, `sha256-HEX.sig`."""
    REFERRER = "referrer"
    """In a manifest that refers to the image (OCI 1.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundSignature:
    """A signature that nothing is known of yet."""

    storage: Storage
    manifest: Digest
    """SHA-256 of the manifest that it is in."""
    payload: Digest
    """SHA-256 of what was signed."""
    payload_size: int
    """Its size, in bytes."""
    signature: bytes
    """The signature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """That an image satisfies a policy, and by what."""

    policy: str
    """Name of the policy."""
    key: str
    """Name of the key."""
    fingerprint: str
    """The key's, see `TrustedKey`."""
    storage: Storage
    """Where the signature was found."""
    signature_manifest: Digest
    """SHA-256 of the manifest that it was found in."""
    identity: str
    """What the signer called the image."""
    digest: Digest
    """SHA-256 of what was signed, the image's manifest or index."""
    verified_at: float
    """When this was verified, in seconds since the epoch."""

    def document(self) -> dict[str, JsonValue]:
        """Return what is kept in the image's record, for programs and people."""
        return {
            "policy": self.policy,
            "key": self.key,
            "fingerprint": self.fingerprint,
            "storage": self.storage.value,
            "signature": self.signature_manifest.oci,
            "identity": self.identity,
            "digest": self.digest.oci,
            "verified_at": datetime.fromtimestamp(self.verified_at, UTC).isoformat(timespec="seconds"),
        }
