"""The whitelist: which certificates may sign revisions, signed by the master key, with a date of expiry."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

from services.common.errors import InvalidValueError
from services.common.repository_name import RepositoryName
from services.repository.native.records import ContentHash, HashAlgorithm
from services.repository.native.trust.errors import WhitelistError
from services.repository.native.trust.keys import Certificate, MasterKey, PublicKey
from services.repository.native.trust.letter import Letter, seal

__all__ = ["Whitelist", "fingerprint"]

_TIME: Final = "%Y%m%d%H%M%S"
_FINGERPRINT: Final = re.compile(r"([0-9A-F]{2}(?::[0-9A-F]{2}){19})(-RMD160|-SHAKE128)?")
_COMMENT: Final = re.compile(r"[ \t#]")
_HEAD_LINES: Final = 3


def fingerprint(certificate: Certificate, algorithm: HashAlgorithm) -> str:
    """Name a certificate as whitelists do: the hash of its DER form, upper-case hex pairs with colons."""
    return _show(ContentHash.of(certificate.der, algorithm))


def _show(name: ContentHash) -> str:
    return name.digest.hex(":").upper() + name.algorithm.suffix.upper()


@dataclass(frozen=True, slots=True, kw_only=True)
class Whitelist:
    """What a whitelist says."""

    repository: RepositoryName
    issued: datetime
    """When it was signed, UTC, in whole seconds."""
    expires: datetime
    """When clients stop to mount the repository, UTC. They count in whole hours, from the beginning of this one."""
    certificates: tuple[ContentHash, ...]
    """Hashes of the certificates' DER form."""

    @property
    def last_moment(self) -> datetime:
        """Since when clients take it for expired: the beginning of the hour."""
        return self.expires.replace(minute=0, second=0, microsecond=0)

    def allows(self, certificate: Certificate) -> bool:
        """Whether revisions that this certificate's key signs are good."""
        return any(ContentHash.of(certificate.der, name.algorithm) == name for name in self.certificates)

    def sign(self, master: MasterKey, *, algorithm: HashAlgorithm) -> bytes:
        """Write and sign it."""
        lines = (
            f"{self.issued:{_TIME}}",
            f"E{self.expires:{_TIME}}",
            f"N{self.repository}",
            *map(_show, self.certificates),
        )
        return seal("".join(f"{line}\n" for line in lines).encode(), master.sign, algorithm=algorithm)

    @classmethod
    def verify(cls, content: bytes, public: PublicKey) -> Self:
        """Read a whitelist after its signature has been checked; whether it is of use is for `check` to say.

        Raises
        ------
        LetterError, SignatureError
            It is not signed with the master key.
        WhitelistError
            It does not have the form.
        """
        letter = Letter.parse(content)
        public.verify(letter.hash_line, letter.signature)
        lines = letter.lines()
        if len(lines) < _HEAD_LINES or lines[1][:1] != "E" or lines[2][:1] != "N":
            raise WhitelistError("the whitelist does not begin with a time, an expiry and a name")
        try:
            repository = RepositoryName(lines[2][1:])
        except InvalidValueError as error:
            raise WhitelistError(f"the whitelist is of a repository that cannot be: {error}") from None
        return cls(
            repository=repository,
            issued=_time(lines[0]),
            expires=_time(lines[1][1:]),
            certificates=tuple(map(_certificate, lines[_HEAD_LINES:])),
        )

    def check(self, *, repository: RepositoryName, certificate: Certificate, now: datetime) -> None:
        """Make sure that clients accept what a certificate's key signs.

        Raises
        ------
        WhitelistError
            It is of another repository, does not name the certificate, or has expired.
        """
        self.check_names(repository=repository, certificate=certificate)
        if now >= self.last_moment:
            raise WhitelistError(f"the whitelist expired at {self.last_moment:%Y-%m-%d %H:%M} UTC: sign a new one")

    def check_names(self, *, repository: RepositoryName, certificate: Certificate) -> None:
        """Do as `check` does, whatever the date is."""
        if self.repository != repository:
            raise WhitelistError(f"the whitelist is of {self.repository}, not of {repository}")
        if not self.allows(certificate):
            used = fingerprint(certificate, self.certificates[0].algorithm if self.certificates else HashAlgorithm.SHA1)
            raise WhitelistError(f"the whitelist does not name the certificate in use, {used}")


def _time(text: str) -> datetime:
    # strptime takes fewer digits as well, and clients check the length of the line
    if re.fullmatch(r"[0-9]{14}", text):
        try:
            return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
        except ValueError:
            pass
    raise WhitelistError(f"the whitelist has no time of 14 digits where one should be: {text[:40]!r}")


def _certificate(line: str) -> ContentHash:
    name = _COMMENT.split(line, maxsplit=1)[0]
    if not _FINGERPRINT.fullmatch(name):
        # `Vpkcs7` and `Wcachain` among them: signatures of other kinds than the one that has been verified.
        raise WhitelistError(f"the whitelist has a line that is no fingerprint of a certificate: {line[:80]!r}")
    return ContentHash.parse(name.replace(":", "").lower())
