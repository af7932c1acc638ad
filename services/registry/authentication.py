"""Proving a user to a registry: basic and token authentication.

Sources: RFC 7617, and the Docker registry's token authentication (distribution/docs/spec/auth: token.md, oauth.md).
"""

import asyncio
import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from yarl import URL

from services.registry.credentials import Credential, CredentialStore
from services.registry.errors import AuthenticationError, InsecureConnectionError, InvalidAnswerError
from services.registry.http import Http, place_of
from services.registry.reference import ImageReference
from services.registry.refusals import refusal

__all__ = ["Authenticator"]

_CLIENT_ID: Final = "docker2cvmfs"

_ANSWER_LIMIT: Final = 1 << 20
"""Most that is read of a token server's answer, in bytes."""

_WORD: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_CHALLENGE_PART = re.compile(
    rf"(?P<name>{_WORD})\s*=\s*(?:\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|(?P<bare>[^\s,\"]+))"
    # A scheme may have one word in place of parameters (token68), which nothing here needs.
    rf"|(?P<scheme>{_WORD})(?:\s+[A-Za-z0-9._~+/-]+=*(?=\s*(?:,|$)))?"
)
_PRINTABLE = re.compile(r"[!-~]{1,65536}")


@dataclass(frozen=True, slots=True)
class _Purpose:
    """What a proof is good for: one repository of one registry, and what may be done there."""

    registry: str
    repository: str
    actions: str


class Authenticator:
    """Proves the user to registries, and remembers the proofs while it lives.

    Parameters
    ----------
    http
        Sends the requests to token servers.
    credentials
        Who the user is.
    """

    def __init__(self, *, http: Http, credentials: CredentialStore) -> None:
        self._http = http
        self._credentials = credentials
        self._proofs: dict[_Purpose, str] = {}
        self._sources: dict[_Purpose, str] = {}
        self._locks: dict[_Purpose, asyncio.Lock] = {}
        self._secrets: set[str] = set()

    def proof(self, reference: ImageReference, actions: str) -> str | None:
        """Return the `Authorization` that the registry accepted before; None where it has asked for none."""
        return self._proofs.get(_purpose(reference, actions))

    def source(self, reference: ImageReference, actions: str) -> str | None:
        """Return where the credentials behind the proof were found; None where it was made without any."""
        return self._sources.get(_purpose(reference, actions))

    def secrets(self) -> tuple[str, ...]:
        """Everything that must not be shown."""
        return (*self._secrets, *(proof.partition(" ")[2] for proof in self._proofs.values()))

    async def prove(
        self, reference: ImageReference, actions: str, challenges: Sequence[str], *, rejected: str | None, what: str
    ) -> None:
        """Answer a registry that wants to know the user.

        Parameters
        ----------
        reference
            The image that the refused request was about.
        actions
            What is to be done with its repository: `pull` or `pull,push`.
        challenges
            The `WWW-Authenticate` headers.
        rejected
            The proof that the request had.
        what
            What the request was for, for errors.

        Raises
        ------
        AuthenticationError
            No user is known, or the known one is not accepted.
        InvalidAnswerError
            The challenge or the token server's answer cannot be understood.
        """
        purpose = _purpose(reference, actions)
        # Parallel requests are refused together, and one token does for all of them.
        async with self._locks.setdefault(purpose, asyncio.Lock()):
            proof = self._proofs.get(purpose)
            if proof is None or proof == rejected:
                self._proofs[purpose] = await self._make(reference, actions, _read_challenges(challenges), what)

    async def _make(
        self, reference: ImageReference, actions: str, challenges: dict[str, dict[str, str]], what: str
    ) -> str:
        credential = await self._credentials.find(reference)
        if credential is not None:
            secrets = (credential.password, credential.identity_token, credential.registry_token)
            self._secrets.update(filter(None, secrets))
            self._sources[_purpose(reference, actions)] = credential.source
        if "bearer" in challenges:
            if credential is not None and credential.registry_token:
                return f"Bearer {_checked(credential.registry_token, what)}"
            return f"Bearer {await self._fetch(reference, actions, challenges['bearer'], credential, what)}"
        if "basic" not in challenges:
            raise InvalidAnswerError(
                f"{what}: {reference.authority} wants neither basic nor token authentication: it cannot be used"
            )
        if credential is None or not credential.password:
            raise AuthenticationError(
                f"{what}: {reference.authority} wants to know the user: docker login {reference.authority}"
            )
        return _basic(credential)

    async def _fetch(
        self,
        reference: ImageReference,
        actions: str,
        challenge: dict[str, str],
        credential: Credential | None,
        what: str,
    ) -> str:
        realm = _realm(challenge.get("realm", ""), reference, what)
        query = {"scope": challenge.get("scope") or f"repository:{reference.repository}:{actions}"}
        if "service" in challenge:
            query["service"] = challenge["service"]
        method, headers, data = "GET", {}, None
        secrets: tuple[str, ...] = ()
        if credential is not None and credential.identity_token:
            query |= {
                "grant_type": "refresh_token",
                "client_id": _CLIENT_ID,
                "refresh_token": credential.identity_token,
            }
            method, data, secrets = "POST", urlencode(query).encode(), (credential.identity_token,)
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
        else:
            if credential is not None:
                headers, secrets = {"Authorization": _basic(credential)}, (credential.password,)
            # One entry for each scope here, a list of words in a form (token.md, oauth.md).
            realm = realm.update_query({**query, "scope": query["scope"].split()})
        doing = f"{what}: asking {place_of(realm)} for a token"
        async with self._http.send(method, realm, what=doing, headers=headers, data=data) as answer:
            if answer.status in (401, 403):
                raise AuthenticationError(_not_accepted(reference, credential, what))
            if answer.status != 200:  # noqa: PLR2004
                raise await refusal(answer, secrets=secrets)
            return _read_token(await answer.body(_ANSWER_LIMIT), doing)


def _purpose(reference: ImageReference, actions: str) -> _Purpose:
    return _Purpose(reference.api_url, reference.repository, actions)


def _not_accepted(reference: ImageReference, credential: Credential | None, what: str) -> str:
    login = f"docker login {reference.authority}"
    if credential is None:
        return f"{what}: {reference.authority} gives nothing to users that it does not know: {login}"
    return f"{what}: {reference.authority} does not accept the user or the password of {credential.source}: {login}"


def _basic(credential: Credential) -> str:
    return "Basic " + base64.b64encode(f"{credential.username}:{credential.password}".encode()).decode()


def _realm(text: str, reference: ImageReference, what: str) -> URL:
    try:
        realm = URL(text)
        usable = realm.scheme in ("http", "https") and realm.host is not None and realm.user is None
    except ValueError:
        usable = False
    if not usable:
        raise InvalidAnswerError(
            f"{what}: {reference.authority} names no token server that can be asked: {text[:200]!r}"
        )
    if reference.scheme == "https" and realm.scheme != "https":
        raise InsecureConnectionError(
            f"{what}: {reference.authority} has the password sent in the clear to {place_of(realm)}: "
            "its token server needs TLS"
        )
    return realm


def _read_challenges(headers: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the parameters of each scheme (RFC 9110, 11.6.1); one header may hold several challenges."""
    found: dict[str, dict[str, str]] = {}
    for header in headers:
        parameters: dict[str, str] = {}
        for part in _CHALLENGE_PART.finditer(header):
            if part["scheme"]:
                parameters = {}
                found.setdefault(part["scheme"].lower(), parameters)
            else:
                value = part["bare"] or re.sub(r"\\(.)", r"\1", part["quoted"] or "")
                parameters.setdefault(part["name"].lower(), value)
    return found


def _read_token(content: bytes, doing: str) -> str:
    try:
        document = json.loads(content)
        token = document.get("token") or document.get("access_token")
    except (ValueError, RecursionError, AttributeError):
        token = None
    if not isinstance(token, str):
        raise InvalidAnswerError(f"{doing}: the answer holds no token: ask those who run it")
    return _checked(token, doing)


def _checked(token: str, doing: str) -> str:
    if not _PRINTABLE.fullmatch(token):
        raise InvalidAnswerError(f"{doing}: the token cannot be sent as a header: ask those who run it")
    return token
