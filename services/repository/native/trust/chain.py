"""Whether clients would believe the head in a storage: what is built on it gets the publisher's signature."""

from services.common.repository_name import RepositoryName
from services.repository.native.errors import BrokenRepositoryError, ObjectMissingError
from services.repository.native.records import MANIFEST, WHITELIST, ContentHash, ObjectKind
from services.repository.native.storage.interface import Storage
from services.repository.native.trust.errors import SignatureError, TrustError, WhitelistError
from services.repository.native.trust.keys import Certificate, PublicKey
from services.repository.native.trust.letter import Letter
from services.repository.native.trust.whitelist import Whitelist
from services.repository.native.writer.manifest import Manifest
from services.repository.native.writer.small_objects import SmallObjects

__all__ = ["verify_head"]


def verify_head(storage: Storage, name: RepositoryName, public: PublicKey, objects: SmallObjects) -> Manifest:
    """Follow the signatures from the public master key to the manifest; the whitelist's date does not matter here.

    Parameters
    ----------
    storage
        Where the repository is.
    name
        Its name.
    public
        The public master key.
    objects
        Reads its certificate.

    Raises
    ------
    TrustError
        A signature does not hold, or the whitelist does not name the manifest's certificate.
    NativeError
        A file is missing, malformed, or of another repository.
    """
    try:
        content = storage.read(MANIFEST)
    except ObjectMissingError as error:
        raise BrokenRepositoryError(
            f"{storage} holds no repository: it has no {MANIFEST}: restore it from a replica or a backup"
        ) from error
    manifest = Manifest.parse(content)
    if manifest.name != name:
        raise WhitelistError(f"{storage} holds the repository {manifest.name}, not {name}")
    try:
        letter = Letter.parse(content)
        certificate = _certificate(objects, manifest.certificate)
        whitelist = Whitelist.verify(storage.read(WHITELIST), public)
        whitelist.check_names(repository=name, certificate=certificate)
        certificate.verify(letter.hash_line, letter.signature)
    except TrustError as error:
        raise TrustError(f"{storage}: {MANIFEST} is not to be trusted: {error}") from error
    return manifest


def _certificate(objects: SmallObjects, name: ContentHash) -> Certificate:
    try:
        content = objects.get(name, ObjectKind.CERTIFICATE)
    except BrokenRepositoryError as error:
        raise SignatureError(str(error)) from error
    return Certificate.parse(content)
