"""Tests on several workers: what goes to one of them as a whole, and where each keeps its files.

Each worker is a Python in a sandbox of its own (`harness/sandboxed-python`), with daemons of its own.
"""

from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

__all__ = ["ByModule", "pytest_collection_modifyitems", "pytest_configure", "pytest_xdist_make_scheduler"]

_TOGETHER: Final = {
    "tests/common/object_store/": "a Ceph cluster",
    "tests/harness/test_ceph": "a Ceph cluster",
    "tests/setup/test_policies": "a Ceph cluster",
    "tests/e2e/test_compose": "the stack of docker-compose.yml",
    "tests/e2e/test_kubernetes": "the stack of docker-compose.yml",  # what its images are built of, too
    "tests/e2e/test_managed_plugin": "the stack of docker-compose.yml",
    "tests/e2e/snapshotter/": "a node with containerd, and an engine to compare it with",
}
"""What modules share that takes long to make, by how their paths begin."""
_LONG: Final = ("tests/e2e/", "tests/repository/native/test_killed", "tests/repository/directory/test_killed")
"""How the paths of other modules begin that take long."""


class ByModule(LoadScopeScheduling):  # type: ignore[misc] # xdist has no types
    """Hands out modules, since tests share daemons with those of their module."""

    def _split_scope(self, nodeid: str) -> str:
        module, _, _ = nodeid.partition("::")
        return _shared(nodeid) or module


def _shared(nodeid: str) -> str | None:
    """Return what a test's module shares with others."""
    return next((shared for beginning, shared in _TOGETHER.items() if nodeid.startswith(beginning)), None)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByModule:
    """Answer to pytest-xdist."""
    return ByModule(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Have workers begin with what one of them does for longest: begun late, all would wait for it in the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: (_shared(item.nodeid) is None, not item.nodeid.startswith(_LONG)))


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Have a worker's files in its sandbox, and not in the directory that whoever started it chose outside."""
    if hasattr(config, "workerinput"):
        config.option.basetemp = None
