"""Whether clients would believe the head in a storage: what is built on it gets the publisher's signature."""

from services.common.repository_name import RepositoryName
from services.repository.native.records import MANIFEST, WHITELIST, ContentHash, ObjectKind
from services.repository.native.storage.interface import Storage
from services.repository.native.trust.errors import SignatureError, TrustError, WhitelistError
from services.repository.native.trust.keys import Certificate, PublicKey
from services.repository.native.trust.letter import Letter
from services.repository.native.trust.whitelist import Whitelist
from services.repository.native.writer.compressor import Compressor
from services.repository.native.writer.manifest import Manifest

__all__ = ["verify_head"]


def verify_head(storage: Storage, name: RepositoryName, public: PublicKey, compressor: Compressor) -> Manifest:
    """Follow the signatures from the public master key to the manifest; the whitelist's date does not matter here.

    Parameters
    ----------
    storage
        Where the repository is.
    name
        Its name.
    public
        The public master key.
    compressor
        The repository's.

    Raises
    ------
    TrustError
        A signature does not hold, or the whitelist does not name the manifest's certificate.
    NativeError
        A file is missing, malformed, or of another repository.
    """
    content = storage.read(MANIFEST)
    manifest = Manifest.parse(content)
    if manifest.name != name:
        raise WhitelistError(f"{storage} holds the repository {manifest.name}, not {name}")
    try:
        letter = Letter.parse(content)
        certificate = _certificate(storage, manifest.certificate, compressor)
        whitelist = Whitelist.verify(storage.read(WHITELIST), public)
        whitelist.check_names(repository=name, certificate=certificate)
        certificate.verify(letter.hash_line, letter.signature)
    except TrustError as error:
        raise TrustError(f"{storage}: {MANIFEST} is not to be trusted: {error}") from error
    return manifest


def _certificate(storage: Storage, name: ContentHash, compressor: Compressor) -> Certificate:
    stored = storage.read(name.path(ObjectKind.CERTIFICATE))
    if ContentHash.of(stored, name.algorithm) != name:
        raise SignatureError(f"the certificate {name} has been changed")
    return Certificate.parse(compressor.expand(stored))
