"""The parts of a driver, put together as its factory does, each within reach of a test."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.common.archive.limits import ArchiveLimits
from services.common.descriptor import DESCRIPTOR_NAME, LayerUrl
from services.common.repository_name import RepositoryName
from services.graphdriver.factory import DriverFactory
from services.graphdriver.settings import GraphDriverSettings
from services.node.cvmfs.finder import LayerFinder
from services.node.cvmfs.host_repositories import HostRepositories
from services.node.cvmfs.repositories import Repositories
from services.node.cvmfs.repository_io import RepositoryIo
from services.node.cvmfs.talk import ClientTalk
from services.node.driver import Driver
from services.node.layers import Layer, LayerId, LayerKind, LayerStore
from services.node.lineage import Lineage, trace
from services.node.local_copies import LocalCopies
from services.node.lower_directories import LowerDirectories
from services.node.masks import MaskStore
from services.node.metrics import NodeMetrics
from services.node.mounted_unions import MountedUnions
from services.node.union import UnionBuilder
from tests.support.repositories import Repository, thin_json

LOOKUP_TIMEOUT = 5.0
"""Seconds: a busy machine may take long for what does not hang."""

Build = Callable[[], Driver]
"""Builds a driver as a process does that starts."""


@dataclass(kw_only=True)
class Core:
    """What works below one home directory, in one process of the driver."""

    home: Path
    io: RepositoryIo
    repositories: Repositories
    allowed: tuple[str, ...] = ("test.example.org", "other.example.org")
    wait: float = 0
    talk_command: str = "cvmfs_talk-that-is-not-installed"
    client_state: Path = Path("/nonexistent")
    metrics: NodeMetrics = field(default_factory=NodeMetrics)
    layers: LayerStore = field(init=False)
    masks: MaskStore = field(init=False)
    copies: LocalCopies = field(init=False)
    finder: LayerFinder = field(init=False)
    builder: UnionBuilder = field(init=False)
    unions: MountedUnions = field(init=False)

    def __post_init__(self) -> None:
        self.layers = LayerStore(self.home)
        self.masks = MaskStore(self.home)
        self.copies = LocalCopies(home=self.home, limits=ArchiveLimits())
        self.finder = LayerFinder(
            repositories=self.repositories,
            allowed=[RepositoryName(name) for name in self.allowed],
            setting="SETTING_OF_REPOSITORIES",
            masks=self.masks,
            io=self.io,
            talk=ClientTalk(command=self.talk_command, state=self.client_state, io=self.io),
            metrics=self.metrics,
        )
        self.builder = UnionBuilder(
            layers=self.layers,
            masks=self.masks,
            directories=LowerDirectories(masks=self.masks, copies=self.copies, finder=self.finder, wait=self.wait),
            finder=self.finder,
            io=self.io,
        )
        self.unions = MountedUnions(layers=self.layers, builder=self.builder)

    def add(
        self, name: str, parent: str | None = None, files: Mapping[str, str] | None = None, *, container: bool = False
    ) -> Layer:
        """Make a layer with files at its root."""
        kind = LayerKind.CONTAINER if container else LayerKind.IMAGE
        layer = self.layers.create(LayerId(name), LayerId(parent) if parent else None, kind)
        for file, content in (files or {}).items():
            (layer.diff / file).write_text(content)
        return layer

    def add_thin(
        self, name: str, parent: str | None, urls: Sequence[str], files: Mapping[str, str] | None = None
    ) -> Layer:
        """Make the layer of a thin image of published layers, base first."""
        layer = self.add(name, parent, files)
        (layer.diff / DESCRIPTOR_NAME).write_bytes(thin_json(*map(LayerUrl, urls)))
        return layer

    def lineage(self, layer: Layer) -> Lineage:
        """Return what lies below a layer."""
        return trace(self.layers.chain(layer.id))

    async def find(self, *urls: LayerUrl) -> dict[LayerUrl, Path]:
        """Look layers up and return the directories of those that are there."""
        findings = await self.finder.find(urls, holder="test")
        for error in findings.failures:
            raise error
        return {url: found.tree for url, found in findings.found.items()}

    async def mount(self, layer: Layer, *, label: str = "") -> Path:
        """Return a layer's union, mounted."""
        return await self.unions.acquire(layer, self.lineage(layer), label=label)


@pytest.fixture
def io() -> RepositoryIo:
    return RepositoryIo(timeout=LOOKUP_TIMEOUT)


@pytest.fixture
def core(home: Path, cvmfs_root: Path, io: RepositoryIo) -> Core:
    repositories = HostRepositories(root=cvmfs_root, io=io)
    return Core(home=home, io=io, repositories=repositories)


@pytest.fixture
def repository(cvmfs_root: Path) -> Repository:
    return Repository(cvmfs_root)


@pytest.fixture
def other_repository(cvmfs_root: Path) -> Repository:
    return Repository(cvmfs_root, "other.example.org")


@pytest.fixture
def settings(cvmfs_root: Path) -> GraphDriverSettings:
    """Settings of a driver that waits little."""
    return GraphDriverSettings(
        repositories=("test.example.org",), cvmfs_root=cvmfs_root, publish_wait=0.2, lookup_timeout=4
    )


@pytest.fixture
def build(
    settings: GraphDriverSettings,
    home: Path,
    mounting: None,  # noqa: ARG001 - ends after this
) -> Build:
    """Build the driver of one process after the other."""
    factory = DriverFactory(settings=settings, limits=ArchiveLimits(), store=None)
    return lambda: factory.build(home)


@pytest.fixture
async def driver(build: Build) -> AsyncIterator[Driver]:
    """A driver, built by its factory as for real."""
    driver = build()
    yield driver
    await driver.shut_down()
