"""A token server as registries are run with: users with passwords or identity tokens, and signed bearer tokens.

The tokens are what docker-registry verifies (distribution/docs/spec/auth/jwt.md), with the certificate in x5c.
"""

import asyncio
import base64
import json
import ssl
import tempfile
import time
from collections.abc import AsyncIterator  # noqa: TC003 - dataclasses read annotations
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiohttp import BasicAuth, web

from tests.support.registries import PASSWORD, USER, run_program

__all__ = ["IDENTITY_TOKEN", "SERVICE", "TokenServer"]

SERVICE: Final = "test registry"
IDENTITY_TOKEN: Final = "identity-of-somebody"  # noqa: S105 - of a test
_ISSUER: Final = "test token server"


@dataclass(slots=True, kw_only=True)
class TokenServer:
    """A token server that runs; `requests` lists how each token was asked for, `scopes` what for."""

    key: Path
    certificate: Path
    url: str = ""
    requests: list[str] = field(default_factory=list)
    scopes: list[str] = field(default_factory=list)
    lifetime: int = 300
    """How long tokens hold, in seconds; negative makes them expired."""

    @classmethod
    @asynccontextmanager
    async def run(cls, directory: Path, *, tls: tuple[Path, Path] | None = None) -> "AsyncIterator[TokenServer]":
        """Run one on the loopback interface."""
        directory.mkdir(parents=True)
        key, certificate = directory / "token.key", directory / "token.pem"
        subject = ("-subj", "/CN=tokens", "-days", "2", "-keyout", str(key), "-out", str(certificate))
        await run_program("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject)
        self = cls(key=key, certificate=certificate)
        app = web.Application()
        app.router.add_get("/token", self._get)
        app.router.add_post("/token", self._post)
        runner = web.AppRunner(app)
        await runner.setup()
        context = None
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{runner.addresses[0][1]}/token"
        try:
            yield self
        finally:
            await runner.cleanup()

    @property
    def registry_settings(self) -> dict[str, str]:
        """What the registry is told."""
        return {"realm": self.url, "service": SERVICE, "issuer": _ISSUER, "rootcertbundle": str(self.certificate)}

    async def _get(self, request: web.Request) -> web.Response:
        header = request.headers.get("Authorization")
        if header is None:
            self.requests.append("GET anonymous")
            return await self._answer(request.query.getall("scope", []), "")
        self.requests.append("GET basic")
        given = BasicAuth.decode(header)
        if (given.login, given.password) != (USER, PASSWORD):
            return web.json_response({"details": "incorrect username or password"}, status=401)
        return await self._answer(request.query.getall("scope", []), USER)

    async def _post(self, request: web.Request) -> web.Response:
        form = await request.post()
        self.requests.append(f"POST {form.get('grant_type')!s}")
        if form.get("refresh_token") != IDENTITY_TOKEN or form.get("service") != SERVICE or not form.get("client_id"):
            return web.json_response({"details": "bad token"}, status=401)
        return await self._answer(str(form.get("scope", "")).split(), USER)

    async def _answer(self, scopes: list[str], user: str) -> web.Response:
        self.scopes += scopes
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            if user or "public" in name:
                granted = actions.split(",") if user else ["pull"]
                access.append({"type": kind, "name": name, "actions": granted})
        now = int(time.time())
        token = await self._sign(
            {
                "iss": _ISSUER,
                "sub": user,
                "aud": SERVICE,
                "exp": now + self.lifetime,
                "nbf": now - 600,
                "iat": now - 600,
                "jti": str(len(self.scopes)),
                "access": access,
            }
        )
        return web.json_response({"token": token, "access_token": token, "expires_in": self.lifetime})

    async def _sign(self, claims: dict[str, Any]) -> str:
        der = base64.b64encode(ssl.PEM_cert_to_DER_cert(self.certificate.read_text())).decode()
        head = {"typ": "JWT", "alg": "RS256", "x5c": [der]}
        content = ".".join(_encode(json.dumps(part).encode()) for part in (head, claims))
        with tempfile.NamedTemporaryFile() as file:
            file.write(content.encode())
            file.flush()
            process = await asyncio.create_subprocess_exec(
                "openssl", "dgst", "-sha256", "-sign", str(self.key), file.name, stdout=asyncio.subprocess.PIPE
            )
            signature, _ = await process.communicate()
        assert process.returncode == 0
        return f"{content}.{_encode(signature)}"


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
