"""Extended attributes: what a layer carries, and what never comes out of an archive."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from services.common.archive.model import LayerContent
from tests.support.tars import archive, member, pax

Put = Callable[..., LayerContent]

CAPABILITY = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)
"""cap_net_raw, permitted and effective (capabilities(7), revision 2)."""


def test_attributes_that_a_layer_carries_are_kept_as_bytes(tree: Path, put: Put) -> None:
    value = b"\0binary=\n" + bytes(range(256))
    put(
        archive(
            pax({b"SCHILY.xattr.security.capability": CAPABILITY, b"SCHILY.xattr.user.k": value}),
            member(b"f", b"", mode=0o755, uid=5),
            pax({b"SCHILY.xattr.user.empty": b"", b"SCHILY.xattr.user.\xc3\xbc": b"1"}),
            member(b"d/", b"", b"5"),
        )
    )
    assert os.getxattr(tree / "f", "security.capability") == CAPABILITY
    assert os.getxattr(tree / "f", "user.k") == value
    assert {name: os.getxattr(tree / "d", name) for name in os.listxattr(tree / "d")} == {
        "user.empty": b"",
        "user.\u00fc": b"1",
    }


@pytest.mark.parametrize(
    "name",
    [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "trusted.overlay.overlay.opaque",
        "user.overlay.opaque",
        "user.overlay.whiteout",
        "trusted.other",
        "system.posix_acl_access",
    ],
)
def test_attributes_that_it_does_not_are_skipped_with_a_note(tree: Path, put: Put, name: str) -> None:
    content = put(archive(pax({b"SCHILY.xattr." + name.encode(): b"y"}), member(b"d/", b"", b"5")))
    assert os.listxattr(tree / "d") == []
    assert name in content.notes[0]


@pytest.mark.parametrize("name", ["security.selinux", "security.ima", "security.evm"])
def test_attributes_of_the_machine_are_skipped_silently(tree: Path, put: Put, name: str) -> None:
    content = put(archive(pax({b"SCHILY.xattr." + name.encode(): b"y"}), member(b"f", b"")))
    assert os.listxattr(tree / "f") == []
    assert content.notes == ()


def test_attributes_on_what_cannot_have_them_are_skipped_with_a_note(put: Put) -> None:
    content = put(
        archive(
            pax({b"SCHILY.xattr.user.a": b"1"}),
            member(b"s", typeflag=b"2", link=b"x"),
            pax({b"SCHILY.xattr.user.a": b"1"}),
            member(b"p", typeflag=b"6"),
            pax({b"SCHILY.xattr.security.capability": CAPABILITY}),
            member(b"d/", b"", b"5"),
        )
    )
    assert [note.split(":")[0] for note in content.notes] == ["'s'", "'p'", "'d'"]
