"""Checks what clients fetch first: the whitelist, the manifest and its certificate.

Every signature is looked at, whatever has become of the others, so that one run tells everything.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, TypeVar

from cryptography.hazmat.primitives.asymmetric import rsa

from services.repository.native.check.problem import RESTORE, Problem
from services.repository.native.check.replication import describe_loss
from services.repository.native.errors import BrokenRepositoryError, ObjectMissingError
from services.repository.native.reader.letters import (
    Certificate,
    Letter,
    Manifest,
    Whitelist,
    check_manifest_signature,
    check_whitelist_signature,
)
from services.repository.native.reader.source import Source
from services.repository.native.reader.trusted import Identity, read_certificate, read_letter
from services.repository.native.records import MANIFEST, WHITELIST, ObjectKind

__all__ = ["REPUBLISH", "check_trust"]

_Parsed = TypeVar("_Parsed")

REPUBLISH: Final = "sign it again, which every publication does"
_RESIGN: Final = "sign the whitelist again with the master key (thin-repository resign)"


def check_trust(source: Source, identity: Identity, *, now: datetime) -> tuple[Manifest | None, list[Problem]]:
    """Check the head of a repository.

    Parameters
    ----------
    source
        Where it is.
    identity
        Which it must be.
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
    whitelist = _whitelist(source, identity.keys, problems)
    signed = _manifest(source, identity.name, problems)
    if signed is None:
        return None, problems
    letter, manifest = signed
    certificate = _certificate(source, manifest, problems)
    if certificate is None:
        return manifest, problems
    try:
        check_manifest_signature(letter, certificate.key)
    except BrokenRepositoryError as error:
        problems.append(_problem(MANIFEST, error, REPUBLISH))
    if whitelist is not None:
        try:
            whitelist.check(name=identity.name, certificate=certificate, now=now)
        except BrokenRepositoryError as error:
            problems.append(_problem(WHITELIST, error, _RESIGN))
    return manifest, problems


def _whitelist(source: Source, keys: Sequence[rsa.RSAPublicKey], problems: list[Problem]) -> Whitelist | None:
    missing = Problem(WHITELIST, "is missing, so that clients refuse the repository", _RESIGN)
    signed = _read(source, WHITELIST, Whitelist.parse, problems, missing=missing, damaged=_RESIGN)
    if signed is None:
        return None
    letter, whitelist = signed
    try:
        check_whitelist_signature(letter, keys)
    except BrokenRepositoryError as error:
        problems.append(_problem(WHITELIST, error, f"{_RESIGN}, or check with the public key that clients have"))
    return whitelist


def _manifest(source: Source, name: str, problems: list[Problem]) -> tuple[Letter, Manifest] | None:
    missing = Problem(MANIFEST, "is missing: there is no repository", RESTORE)
    signed = _read(source, MANIFEST, Manifest.parse, problems, missing=missing, damaged=REPUBLISH)
    if signed is not None and signed[1].name != name:
        problems.append(Problem(MANIFEST, f"is of the repository {signed[1].name}, not of {name}", RESTORE))
    return signed


def _read(
    source: Source,
    path: str,
    parse: Callable[[Letter], _Parsed],
    problems: list[Problem],
    *,
    missing: Problem,
    damaged: str,
) -> tuple[Letter, _Parsed] | None:
    """Read a signed text; its signature is not looked at."""
    try:
        letter = read_letter(source, path)
        return letter, parse(letter)
    except ObjectMissingError:
        problems.append(missing)
    except BrokenRepositoryError as error:
        problems.append(_problem(path, error, damaged))
    return None


def _certificate(source: Source, manifest: Manifest, problems: list[Problem]) -> Certificate | None:
    try:
        return read_certificate(source, manifest)
    except (ObjectMissingError, BrokenRepositoryError) as error:
        problems.append(describe_loss(source, manifest.certificate, ObjectKind.CERTIFICATE, error))
    return None


def _problem(place: str, error: BrokenRepositoryError, remedy: str) -> Problem:
    return Problem(place, str(error).removeprefix(place).lstrip(": "), remedy)
