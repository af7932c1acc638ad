"""Checks what clients fetch first: the whitelist, the manifest and its certificate.

Every signature is looked at, whatever has become of the others, so that one run tells everything.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa

from services.publisher.repository.native.errors import BrokenRepositoryError, ObjectMissingError
from services.publisher.repository.native.reader.check.problem import RESTORE, Problem
from services.publisher.repository.native.reader.letters import (
    Manifest,
    Whitelist,
    check_manifest_signature,
    check_whitelist_signature,
)
from services.publisher.repository.native.reader.source import Source
from services.publisher.repository.native.reader.trusted import read_certificate, read_letter
from services.publisher.repository.native.records import MANIFEST, WHITELIST, ObjectKind

__all__ = ["REPUBLISH", "check_trust"]

REPUBLISH: Final = "sign it again, which every publication does"
_RESIGN: Final = "sign the whitelist again with the master key (thin-repository resign)"


def check_trust(
    source: Source, *, name: str, keys: Sequence[rsa.RSAPublicKey], now: datetime
) -> tuple[Manifest | None, list[Problem]]:
    """Check the head of a repository.

    Parameters
    ----------
    source
        Where it is.
    name
        The name that it must have.
    keys
        Public master keys, one of which must have signed the whitelist.
    now
        When the whitelist must be good.

    Returns
    -------
    tuple
        What the manifest says, if it can be read at all, and what is wrong.

    Raises
    ------
    StorageError
        The storage failed.
    """
    problems: list[Problem] = []
    whitelist = _whitelist(source, keys, problems)
    manifest = _manifest(source, name, problems)
    if manifest is not None:
        _certificate(source, manifest, whitelist, name=name, now=now, problems=problems)
    return manifest, problems


def _whitelist(source: Source, keys: Sequence[rsa.RSAPublicKey], problems: list[Problem]) -> Whitelist | None:
    try:
        letter = read_letter(source, WHITELIST)
        whitelist = Whitelist.parse(letter)
    except ObjectMissingError:
        problems.append(Problem(WHITELIST, "is missing, so that clients refuse the repository", _RESIGN))
        return None
    except BrokenRepositoryError as error:
        problems.append(_problem(WHITELIST, error, _RESIGN))
        return None
    try:
        check_whitelist_signature(letter, keys)
    except BrokenRepositoryError as error:
        problems.append(_problem(WHITELIST, error, f"{_RESIGN}, or check with the public key that clients have"))
    return whitelist


def _manifest(source: Source, name: str, problems: list[Problem]) -> Manifest | None:
    try:
        manifest = Manifest.parse(read_letter(source, MANIFEST))
    except ObjectMissingError:
        problems.append(Problem(MANIFEST, "is missing: there is no repository", RESTORE))
        return None
    except BrokenRepositoryError as error:
        problems.append(_problem(MANIFEST, error, REPUBLISH))
        return None
    if manifest.name != name:
        problems.append(Problem(MANIFEST, f"is of the repository {manifest.name}, not of {name}", RESTORE))
    return manifest


def _certificate(
    source: Source,
    manifest: Manifest,
    whitelist: Whitelist | None,
    *,
    name: str,
    now: datetime,
    problems: list[Problem],
) -> None:
    path = manifest.certificate.path(ObjectKind.CERTIFICATE)
    try:
        certificate = read_certificate(source, manifest)
    except ObjectMissingError:
        problems.append(Problem(MANIFEST, f"its certificate {path} is missing", RESTORE))
        return
    except BrokenRepositoryError as error:
        problems.append(Problem(MANIFEST, f"its certificate {error}", RESTORE))
        return
    try:
        check_manifest_signature(read_letter(source, MANIFEST), certificate.key)
    except BrokenRepositoryError as error:
        problems.append(_problem(MANIFEST, error, REPUBLISH))
    if whitelist is not None:
        try:
            whitelist.check(name=name, certificate=certificate, now=now)
        except BrokenRepositoryError as error:
            problems.append(_problem(WHITELIST, error, _RESIGN))


def _problem(place: str, error: BrokenRepositoryError, remedy: str) -> Problem:
    return Problem(place, str(error).removeprefix(place).lstrip(": "), remedy)
