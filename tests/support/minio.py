"""A stand-in for MinIO: the calls that the set-up makes, answered as its source does.

It checks signatures, keeps users, policies and notifications, and refuses what MinIO refuses: unknown keys, what a
user's policies do not allow, notifications to webhooks that it does not have. It stores no objects.
"""

import fnmatch
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Self
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from aiohttp import web
from minio.credentials.providers import StaticProvider
from minio.crypto import decrypt
from minio.signer import sign_v4_s3
from urllib3 import HTTPResponse

__all__ = ["MinioStandIn"]

_REGION: Final = "us-east-1"
_XMLNS: Final = "http://s3.amazonaws.com/doc/2006-03-01/"


class _RefusedError(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


@dataclass
class MinioStandIn:
    """The server, at `url`, with an administrator."""

    admin: tuple[str, str] = ("admin-key-of-tests", "admin-secret-of-tests")
    webhooks: tuple[str, ...] = ("PUBLISHER",)
    url: str = ""
    buckets: dict[str, str] = field(default_factory=dict)
    """The notification configuration of each bucket, as XML."""
    users: dict[str, str] = field(default_factory=dict)
    """The secret key of each user."""
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The policies, by their names."""
    public: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The policy that a bucket has of its own."""
    attached: dict[str, str] = field(default_factory=dict)
    """The policy of each user."""
    changes: list[str] = field(default_factory=list)
    """What was changed, in order."""
    unready: int = 0
    """How many of the next requests are answered as during a start."""

    @classmethod
    @asynccontextmanager
    async def listen(cls) -> AsyncIterator[Self]:
        """Run one."""
        self = cls()
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = "http://{}:{}".format(*runner.addresses[0])
            yield self
        finally:
            await runner.cleanup()

    def allows(self, user: str, action: str, resource: str) -> bool:
        """Whether a user may do something."""
        if user == self.admin[0]:
            return True
        policy = self.policies.get(self.attached.get(user, ""), {"Statement": []})
        return any(
            statement["Effect"] == "Allow"
            and action in statement["Action"]
            and any(fnmatch.fnmatchcase(resource, pattern) for pattern in statement["Resource"])
            for statement in policy["Statement"]
        )

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            self._check_ready()
            user = self._user(request)
            body = await request.read()
            if request.path.startswith("/minio/admin/v3/"):
                return self._administrate(request, user, body)
            return self._serve(request, user, body)
        except _RefusedError as refused:
            if request.path.startswith("/minio/admin/"):
                return web.json_response({"Code": refused.code, "Message": refused.message}, status=refused.status)
            error = f"<Error><Code>{refused.code}</Code><Message>{refused.message}</Message></Error>"
            return web.Response(text=error, status=refused.status, content_type="application/xml")

    def _check_ready(self) -> None:
        if self.unready:
            self.unready -= 1
            raise _RefusedError(503, "XMinioServerNotInitialized", "Server not initialized yet, please try again.")

    def _user(self, request: web.Request) -> str:
        """Find who signed the request, as version 4 of AWS' signatures has it."""
        shown = request.headers["Authorization"]
        key, date, *_ = shown.split("Credential=")[1].split(",")[0].split("/")
        secret = {**self.users, self.admin[0]: self.admin[1]}.get(key)
        if secret is None:
            raise _RefusedError(403, "InvalidAccessKeyId", "The access key you provided does not exist in our records.")
        signed = shown.split("SignedHeaders=")[1].split(",")[0].split(";")
        moment = datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        assert request.headers["x-amz-date"].startswith(date)
        again = sign_v4_s3(
            method=request.method,
            url=urlsplit(f"{self.url}{request.raw_path}"),
            region=_REGION,
            headers={name: request.headers[name] for name in signed},
            credentials=StaticProvider(key, secret).retrieve(),
            content_sha256=request.headers["x-amz-content-sha256"],
            date=moment,
        )
        if again["Authorization"] != shown:
            raise _RefusedError(403, "SignatureDoesNotMatch", "The request signature we calculated does not match.")
        return key

    def _administrate(self, request: web.Request, user: str, body: bytes) -> web.Response:
        if user != self.admin[0]:
            raise _RefusedError(403, "AccessDenied", "Access Denied.")
        query = request.query
        commands: dict[str, Callable[[], None]] = {
            "add-canned-policy": lambda: self._add_policy(query["name"], body),
            "add-user": lambda: self._add_user(query["accessKey"], body),
            "set-user-or-group-policy": lambda: self._set_policy(query["userOrGroup"], query["policyName"]),
        }
        command = request.path.rpartition("/")[2]
        commands[command]()
        self.changes.append(command)
        return web.Response()

    def _add_policy(self, name: str, body: bytes) -> None:
        self.policies[name] = self._policy(body)

    def _policy(self, body: bytes) -> dict[str, Any]:
        policy: dict[str, Any] = json.loads(body)
        if policy.get("Version") != "2012-10-17" or not policy.get("Statement"):
            raise _RefusedError(400, "XMinioMalformedIAMPolicy", "Policy has an invalid version or no statement.")
        return policy

    def _add_user(self, access_key: str, body: bytes) -> None:
        document = json.loads(decrypt(HTTPResponse(io.BytesIO(body), preload_content=False), self.admin[1]))
        if not (3 <= len(access_key) <= 20 and 8 <= len(document["secretKey"]) <= 40):
            raise _RefusedError(400, "InvalidArgument", "The access key or the secret key is too short or too long.")
        self.users[access_key] = document["secretKey"]

    def _set_policy(self, user: str, policy: str) -> None:
        if user not in self.users:
            raise _RefusedError(404, "XMinioAdminNoSuchUser", "The specified user does not exist.")
        if policy not in self.policies:
            raise _RefusedError(404, "XMinioAdminNoSuchPolicy", "The canned policy does not exist.")
        self.attached[user] = policy

    def _serve(self, request: web.Request, user: str, body: bytes) -> web.Response:
        bucket, _, key = request.path[1:].partition("/")
        if key:
            self._check(user, "s3:GetObject", f"{bucket}/{key}")
            raise _RefusedError(404, "NoSuchKey", "The specified key does not exist.")
        if "notification" in request.query:
            self._check(user, "s3:GetBucketNotification", bucket)
            return self._notification(request, bucket, body)
        if "policy" in request.query:
            self._check(user, "s3:PutBucketPolicy", bucket)
            self.public[bucket] = self._policy(body)
            self.changes.append("set-policy")
            return web.Response(status=204)
        if request.method == "PUT":
            self._check(user, "s3:CreateBucket", bucket)
            self.buckets[bucket] = f'<NotificationConfiguration xmlns="{_XMLNS}"/>'
            self.changes.append("make-bucket")
            return web.Response()
        self._check(user, "s3:ListBucket", bucket)
        if bucket not in self.buckets:
            raise _RefusedError(404, "NoSuchBucket", "The specified bucket does not exist")
        content = f"<Name>{bucket}</Name><IsTruncated>false</IsTruncated>"
        listing = f'<ListBucketResult xmlns="{_XMLNS}">{content}</ListBucketResult>'
        return web.Response(text=listing, content_type="application/xml")

    def _check(self, user: str, action: str, resource: str) -> None:
        if not self.allows(user, action, f"arn:aws:s3:::{resource}"):
            raise _RefusedError(403, "AccessDenied", "Access Denied.")

    def _notification(self, request: web.Request, bucket: str, body: bytes) -> web.Response:
        if request.method == "GET":
            return web.Response(text=self.buckets[bucket], content_type="application/xml")
        arns = {element.text for element in ET.fromstring(body).iter() if element.tag.endswith("Queue")}  # noqa: S314 - of the test itself
        if not arns <= {f"arn:minio:sqs::{webhook}:webhook" for webhook in self.webhooks}:
            raise _RefusedError(400, "InvalidArgument", "A specified destination ARN does not exist.")
        self.buckets[bucket] = body.decode()
        self.changes.append("set-notification")
        return web.Response()
