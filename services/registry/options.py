"""How registries are spoken to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from services.registry.credentials import CredentialStore, DockerCredentials
from services.registry.mirrors import Mirror

__all__ = ["RegistryOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryOptions:
    """How registries are spoken to; the defaults suit registries on the Internet."""

    insecure: bool = False
    """Plain HTTP to every registry."""
    insecure_registries: frozenset[str] = frozenset()
    """Registries that have no TLS, as `registry_of` gives them."""
    ca_file: Path | None = None
    """Certificates, as PEM, that are trusted besides the system's own."""
    credentials: CredentialStore = field(default_factory=DockerCredentials.of_environment)
    """Where users and passwords come from."""
    mirrors: Mapping[str, Mirror] = field(default_factory=dict)
    """Where images of registries, as `registry_of` gives them, are pulled from first."""
    concurrency: int = 8
    """Most requests to one registry at a time."""
    connect_timeout: float = 15.0
    """How long a connection may take, in seconds."""
    read_timeout: float = 60.0
    """How long nothing may arrive, in seconds."""
    attempts: int = 5
    """How often something is tried that fails for a reason that may pass."""
    longest_wait: float = 120.0
    """The longest Retry-After that is waited for, and the longest that one request is retried, in seconds."""
    slowest: int = 50_000
    """The rate below which a blob's transfer is given up, in bytes a second, beyond its first five minutes."""

    def scheme(self, authority: str) -> Literal["https", "http"]:
        """Return how the registry at `HOST[:PORT]` is spoken to."""
        return "http" if self.insecure or authority.lower() in self.insecure_registries else "https"
