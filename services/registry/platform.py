"""Platforms of images: operating system, processor, and its variant (names of Go's GOOS and GOARCH)."""

import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from services.common.errors import InvalidValueError

__all__ = ["Platform"]

_PART = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

_MACHINES: Final = {
    "x86_64": ("amd64", ""),
    "amd64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "arm64": ("arm64", ""),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "riscv64": ("riscv64", ""),
    "s390x": ("s390x", ""),
}
"""What the kernel calls a processor, and what images call it."""

_LEVELS: Final = {"amd64": 1, "arm": 7, "arm64": 8}
"""The variant that an image without one is for (as containerd reads it)."""


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on."""

    os: str
    """Operating system, such as `linux`."""
    architecture: str
    """Processor, such as `arm64`."""
    variant: str = ""
    """Variant of the processor, such as `v8`; empty for the usual one."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `OS/ARCHITECTURE[/VARIANT]`.

        Raises
        ------
        InvalidValueError
            The text is of another form.
        """
        parts = text.lower().split("/")
        if len(parts) not in (2, 3) or not all(_PART.fullmatch(part) for part in parts):
            raise InvalidValueError(f"not a platform of the form linux/amd64 or linux/arm/v7: {text[:80]!r}")
        os, machine, *rest = parts
        architecture, variant = _MACHINES.get(machine, (machine, ""))
        return cls(os, architecture, rest[0] if rest else variant)

    @classmethod
    def local(cls) -> Self:
        """Return this machine's platform."""
        machine = platform.machine().lower()
        architecture, variant = _MACHINES.get(machine, (machine, ""))
        return cls(platform.system().lower(), architecture, variant)

    @property
    def level(self) -> int:
        """The variant as a number: a processor runs what is made for its own or a lower one."""
        digits = self.variant.removeprefix("v").partition(".")[0]
        return int(digits) if digits.isdecimal() else _LEVELS.get(self.architecture, 0)

    def runs(self, other: "Platform") -> bool:
        """Whether an image for the other platform runs on this one."""
        return (self.os, self.architecture) == (other.os, other.architecture) and other.level <= self.level

    def best(self, candidates: Sequence["Platform"]) -> int | None:
        """Return the position of the candidate that suits best; None if none runs here."""
        fitting = [position for position, candidate in enumerate(candidates) if self.runs(candidate)]
        return max(fitting, key=lambda position: candidates[position].level, default=None)

    def refined(self, listed: "Platform") -> Self:
        """Return this platform with the variant that an index lists; only the index has that of many images for arm."""
        same = (self.os, self.architecture) == (listed.os, listed.architecture)
        return replace(self, variant=listed.variant) if same and listed.variant else self

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))
