"""Mount tables of all processes."""

import os
from pathlib import Path

from services.repository.cvmfs_server.mounts import namespaces, own_mounts
from tests.support.mounts import mount, unmount_all_below


def test_an_overlay_is_shown_with_its_lower_directories(tmp_path: Path) -> None:
    names = ("one", "two", "point")
    for name in names:
        (tmp_path / name).mkdir()
    lower = ":".join(str(tmp_path / name) for name in names[:2])
    mount("-t", "overlay", "overlay", "-o", f"lowerdir={lower}", tmp_path / "point")
    try:
        (found,) = (mount for mount in own_mounts() if mount.point == str(tmp_path / "point"))
        status = (tmp_path / "point").stat()
    finally:
        unmount_all_below(tmp_path)
    assert found.kind == "overlay"
    assert found.lower == tuple(str(tmp_path / name) for name in names[:2])
    assert found.device == f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"


def test_the_namespace_of_this_process_is_not_among_the_others() -> None:
    own = {mount.number for mount in own_mounts()}
    assert [namespace for namespace in namespaces() if own & {mount.number for mount in namespace.mounts}] == []
