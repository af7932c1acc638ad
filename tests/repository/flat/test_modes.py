"""Permissions of flat images."""

import stat

import pytest

from services.repository.flat.modes import Modes


@pytest.mark.parametrize(
    ("mode", "directory", "file", "open_directory", "open_file"),
    [
        (0o000, 0o700, 0o400, 0o705, 0o404),
        (0o600, 0o700, 0o600, 0o705, 0o604),
        (0o700, 0o700, 0o700, 0o705, 0o705),
        (0o4110, 0o4710, 0o4510, 0o4715, 0o4515),
        (0o1777, 0o1777, 0o1777, 0o1777, 0o1777),
        (0o2070, 0o2770, 0o2470, 0o2775, 0o2475),
    ],
)
def test_permissions_are_added_and_none_is_taken(
    mode: int, directory: int, file: int, open_directory: int, open_file: int
) -> None:
    assert Modes(others_read=False).of_directory(stat.S_IFDIR | mode) == stat.S_IFDIR | directory
    assert Modes(others_read=False).of_file(stat.S_IFREG | mode) == stat.S_IFREG | file
    assert Modes(others_read=True).of_directory(mode) == open_directory
    assert Modes(others_read=True).of_file(mode) == open_file
