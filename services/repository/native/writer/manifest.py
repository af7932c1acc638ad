"""The signed manifest, `.cvmfspublished`, as the writer makes it and reads its own back."""

from dataclasses import dataclass
from typing import Final, Self

from services.common.errors import InvalidValueError
from services.common.repository_name import RepositoryName
from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.records import MANIFEST, ROOT_PATH_HASH, ContentHash, RefKind
from services.repository.native.signer import Signer
from services.repository.native.trust.letter import seal

__all__ = ["Manifest", "Root"]

_SEPARATOR: Final = b"--\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A root catalog that has been stored."""

    catalog: ContentHash
    size: int
    """Size of the uncompressed catalog, in bytes."""
    revision: int
    """As the catalog's own property says."""
    published: int
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What one revision of a repository is."""

    name: RepositoryName
    root: ContentHash
    """The root catalog."""
    root_size: int
    """Size of the uncompressed root catalog, in bytes."""
    revision: int
    published: int
    """Seconds since the epoch."""
    certificate: ContentHash
    ttl: int
    """Seconds for which clients do not look for a newer manifest."""
    garbage_collectable: bool = True
    history: ContentHash | None = None
    meta: ContentHash | None = None
    reflog: ContentHash | None = None
    """The hash of the reference log as stored."""

    @property
    def references(self) -> list[tuple[ContentHash, RefKind]]:
        """What it names, as a reference log lists it."""
        found = [(self.root, RefKind.CATALOG), (self.certificate, RefKind.CERTIFICATE)]
        found += [(self.history, RefKind.HISTORY)] if self.history else []
        found += [(self.meta, RefKind.META)] if self.meta else []
        return found

    def encode(self, signer: Signer) -> bytes:
        """Write the file: body, separator, hash line, signature.

        Raises
        ------
        NativeError
            The key cannot be used.
        """
        lines = [
            f"C{self.root}",
            f"B{self.root_size}",
            f"R{ROOT_PATH_HASH}",
            f"D{self.ttl}",
            f"S{self.revision}",
            f"G{'yes' if self.garbage_collectable else 'no'}",
            "Ano",
            f"N{self.name}",
            f"X{self.certificate}",
        ]
        lines += [f"H{self.history}"] if self.history else []
        lines.append(f"T{self.published}")
        lines += [f"M{self.meta}"] if self.meta else []
        lines += [f"Y{self.reflog}"] if self.reflog else []
        body = "".join(f"{line}\n" for line in lines).encode("ascii")
        return seal(body, signer.sign, algorithm=self.root.algorithm)

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read the fields back; the signature is the reader's affair.

        Raises
        ------
        BrokenRepositoryError
            A field is missing or is not what it must be, or the hash line is not that of the body.
        """
        body, separator, rest = content.partition(b"\n" + _SEPARATOR)
        body += b"\n"
        try:
            fields = {line[:1]: line[1:] for line in body.decode("ascii").splitlines()}
            root = ContentHash.parse(fields["C"])
            if not separator or rest.partition(b"\n")[0] != str(ContentHash.of(body, root.algorithm)).encode("ascii"):
                raise BrokenRepositoryError(f"{MANIFEST} is damaged: its hash line is not that of its body")
            return cls(
                name=RepositoryName(fields["N"]),
                root=root,
                root_size=int(fields["B"]),
                revision=int(fields["S"]),
                published=int(fields["T"]),
                certificate=ContentHash.parse(fields["X"]),
                ttl=int(fields["D"]),
                garbage_collectable=fields.get("G") == "yes",
                history=_optional(fields, "H"),
                meta=_optional(fields, "M"),
                reflog=_optional(fields, "Y"),
            )
        except KeyError as error:
            raise BrokenRepositoryError(f"{MANIFEST} has no field {error}") from error
        except (ValueError, InvalidValueError) as error:
            raise BrokenRepositoryError(f"{MANIFEST} is damaged: {error}") from error


def _optional(fields: dict[str, str], letter: str) -> ContentHash | None:
    return ContentHash.parse(fields[letter]) if letter in fields else None
