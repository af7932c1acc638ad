"""Deliberately damaged copies of the golden repository, signed with keys of their own.

Written from the description of the format and with nothing of the suite's writer or reader, so that neither hides the
other's mistakes.
"""

import base64
import hashlib
import shutil
import sqlite3
import struct
import zlib
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from tests.support.golden import GOLDEN, GOLDEN_NAME

__all__ = ["ROOT_CATALOG", "Forgery", "forged_key", "md5path"]

ROOT_CATALOG: Final = "f5a3fbb9f55fbf4a577aae4038ae1c22a591566d"
"""Of the golden repository's head."""
_TIME: Final = "%Y%m%d%H%M%S"


@cache
def _key(purpose: str) -> rsa.RSAPrivateKey:
    del purpose
    return rsa.generate_private_key(65537, 2048)


@cache
def _certificate() -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "forger")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
    builder = (
        builder.not_valid_before(now).not_valid_after(now + timedelta(1)).public_key(_key("repository").public_key())
    )
    return builder.sign(_key("repository"), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def forged_key() -> bytes:
    """Return the public master key of all forgeries, PEM."""
    return (
        _key("master")
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def md5path(path: str) -> tuple[int, int]:
    """Return the two columns that name a path."""
    first, second = struct.unpack("<qq", hashlib.md5(path.encode(), usedforsecurity=False).digest())
    return first, second


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def _raw_signature(key: rsa.RSAPrivateKey, message: bytes) -> bytes:
    numbers = key.private_numbers()
    modulus = numbers.public_numbers.n
    length = (modulus.bit_length() + 7) // 8
    block = b"\0\1" + b"\xff" * (length - 3 - len(message)) + b"\0" + message
    return pow(int.from_bytes(block), numbers.d, modulus).to_bytes(length)


class Forgery:
    """A copy of the golden repository. Changes are made first, `seal` signs them.

    Parameters
    ----------
    root
        Directory for the copy, which does not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copytree(GOLDEN, root)
        self.begin_again()

    def begin_again(self) -> None:
        """Take all changes back; objects that have been stored stay, and nobody names them."""
        letter = (GOLDEN / ".cvmfspublished").read_bytes().partition(b"--\n")[0].decode()
        self.fields = {line[0]: line[1:] for line in letter.splitlines()}
        self.fields["X"] = self.store(_certificate(), "X")
        der = base64.b64decode(b"".join(_certificate().splitlines()[1:-1]))
        self.fingerprints = [hashlib.sha1(der, usedforsecurity=False).digest().hex(":").upper()]
        self.name = GOLDEN_NAME
        self.expires = datetime.now(UTC) + timedelta(days=30)
        self.keep_reflog = False

    def object(self, name: str, kind: str = "") -> Path:
        """Return the file of an object."""
        return self.root / "data" / name[:2] / (name[2:] + kind)

    def store(self, content: bytes, kind: str = "") -> str:
        """Store an object, compressed, and return its name."""
        stored = zlib.compress(content)
        name = _sha1(stored)
        self.object(name, kind).parent.mkdir(exist_ok=True)
        self.object(name, kind).write_bytes(stored)
        return name

    def content(self, name: str, kind: str) -> bytes:
        """Return the content of a compressed object."""
        return zlib.decompress(self.object(name, kind).read_bytes())

    def edit(self, path: str, *statements: str) -> None:
        """Change a catalog by SQL, and all those above it, which name it.

        In the statements `first('/a/b')` and `second('/a/b')` are the two columns that name a path.

        Parameters
        ----------
        path
            Directory that is the catalog's root; empty for the root catalog.
        statements
            What to execute.
        """

        def change(database: bytes) -> bytes:
            with closing(sqlite3.connect(":memory:")) as connection:
                connection.deserialize(database)
                connection.create_function("first", 1, lambda of: md5path(of)[0], deterministic=True)
                connection.create_function("second", 1, lambda of: md5path(of)[1], deterministic=True)
                for statement in statements:
                    connection.execute(statement)
                connection.commit()
                return connection.serialize()

        self.rewrite(path, change)

    def rewrite(self, path: str, change: Callable[[bytes], bytes]) -> None:
        """Change the file of a catalog, and all those above it, which name it."""
        chain = [("", self.fields["C"])]
        while (below := self._nested(chain[-1][1], path)) is not None:
            chain.append(below)
        (_, name), *above = reversed(chain)
        content = change(self.content(name, "C"))
        name = self.store(content, "C")
        for (at, _), (_, parent) in zip(reversed(chain), above, strict=False):
            content = _point(self.content(parent, "C"), at, name, len(content))
            name = self.store(content, "C")
        self.fields |= {"C": name, "B": str(len(content))}

    def _nested(self, catalog: str, path: str) -> tuple[str, str] | None:
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.deserialize(self.content(catalog, "C"))
            for at, name in connection.execute("SELECT path, sha1 FROM nested_catalogs"):
                if f"{path}/".startswith(f"{at}/"):
                    return at, name
        return None

    def history(self, *statements: str) -> None:
        """Change the tag database by SQL."""
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.deserialize(self.content(self.fields["H"], "H"))
            for statement in statements:
                connection.execute(statement)
            connection.commit()
            self.fields["H"] = self.store(connection.serialize(), "H")

    def reflog(self, *statements: str) -> None:
        """Change the reference log by SQL."""
        with closing(sqlite3.connect(self.root / ".cvmfsreflog")) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    def seal(self) -> None:
        """Write and sign reference log, manifest and whitelist."""
        if not self.keep_reflog:
            kinds = {"C": 0, "X": 1, "H": 2, "M": 3}
            self.reflog(
                *(
                    f"INSERT OR REPLACE INTO refs VALUES ('{self.fields[field]}', {kind}, 1795505437)"  # noqa: S608
                    for field, kind in kinds.items()
                    if field in self.fields
                )
            )
            self.fields["Y"] = _sha1((self.root / ".cvmfsreflog").read_bytes())
        body = "".join(f"{letter}{value}\n" for letter, value in self.fields.items()).encode()
        line = _sha1(body).encode()
        signature = _key("repository").sign(line, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303 - the format's
        (self.root / ".cvmfspublished").write_bytes(body + b"--\n" + line + b"\n" + signature)
        lines = [f"{datetime.now(UTC):{_TIME}}", f"E{self.expires:{_TIME}}", f"N{self.name}", *self.fingerprints]
        body = "".join(f"{line}\n" for line in lines).encode()
        line = _sha1(body).encode()
        signature = _raw_signature(_key("master"), line)
        (self.root / ".cvmfswhitelist").write_bytes(body + b"--\n" + line + b"\n" + signature)


def _point(database: bytes, path: str, name: str, size: int) -> bytes:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(database)
        connection.execute("UPDATE nested_catalogs SET sha1 = ?, size = ? WHERE path = ?", (name, size, path))
        connection.commit()
        return connection.serialize()
