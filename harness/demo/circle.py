"""The steps of the demonstration."""

import json
import sys
from pathlib import Path
from typing import Final

from harness.commands import run
from harness.containerd_node import ContainerdNode
from harness.cvmfs_client import RepositoryServer, mount_repository
from harness.demo.image import BaseImage, flatten
from harness.demo.narrator import Narrator
from harness.demo.playground import write_playground
from harness.demo.push import Push
from harness.demo.turn import Figures, Images, Place, Turn, size_text
from harness.engine import Engine
from harness.images import write_image
from harness.node import Node
from harness.registry import Registry
from harness.stratum0 import Stratum0
from harness.thin_images import read_descriptor
from services.node.reports import HARD_LINKS, HARD_LINKS_KEPT

__all__ = ["Circle", "Mounted"]

_IMAGES: Final = Images(regular="demo:regular", thin="demo:thin")
_OF_SEVERAL: Final = (
    "two files to programs: dockerd mounts the unions, and has files numbered as those of their own file systems"
)
"""What the snapshotter cannot tell by itself."""


class Mounted:
    """A repository that a machine has mounted by its own CVMFS client.

    Parameters
    ----------
    client
        The configured client.
    root
        Directory of the repositories, which is made.
    """

    def __init__(self, client: Path, root: Path) -> None:
        self.root = root
        self._client = client

    async def mount(self, stratum0: Stratum0) -> None:
        """Mount the repository, which has its first layers by now."""
        await mount_repository(self._client, stratum0.repository, self.root / stratum0.repository)


class Circle:
    """One run of the demonstration, on daemons of its own.

    Parameters
    ----------
    stratum0
        Where layers are published.
    server
        Where the nodes' CVMFS clients read; none where the nodes see the repository as it is.
    node_a
        A node with the graphdriver.
    node_b
        A node with containerd and the snapshotter.
    mounted
        The repository of node B; none where it sees the repository as it is.
    plain
        The same Docker with overlay2.
    registry
        Where the ordinary image is.
    push
        What becomes visible by itself.
    directory
        Existing directory for archives.
    large
        Size of the largest file that is written, in bytes.
    choice
        Of which kind the repository is, and why; for people.
    """

    def __init__(
        self,
        *,
        stratum0: Stratum0,
        server: RepositoryServer | None,
        node_a: Node,
        node_b: ContainerdNode,
        mounted: Mounted | None,
        plain: Engine,
        registry: Registry,
        push: Push,
        directory: Path,
        large: int,
        narrator: Narrator,
        choice: str,
    ) -> None:
        self._stratum0 = stratum0
        self._server = server
        self._a = node_a
        self._b = node_b
        self._mounted = mounted
        self._plain = plain
        self._registry = registry
        self._push = push
        self._directory = directory
        self._large = large
        self._narrator = narrator
        self._choice = choice
        self._figures: Figures = {}

    async def run(self, base: BaseImage | Path) -> None:
        """Go round once under each front end; `base` is the image, or a docker archive of it.

        Raises
        ------
        DifferenceError
            The comparison found differences.
        """
        await self._start()
        await self._publish(base)
        self._narrator.step("A push becomes visible by itself: a wish list has the image, the registry announces it")
        self._figures["from docker push to visible"] = f"{await self._push.run(_IMAGES.regular):.2f} s"
        places = [
            Place(
                name=self._a.name,
                front_end="graphdriver",
                engine=self._a.engine,
                hidden_links=await self._links_told(),
            ),
            Place(
                name=self._b.name,
                front_end="containerd snapshotter",
                engine=self._b.engine,
                hidden_links=None if self._mounted is None else _OF_SEVERAL,
            ),
        ]
        found = [await self._turn(*places).run(), await self._turn(*reversed(places)).run()]
        self._narrator.step("In figures")
        self._show(self._figures)
        for place, figures in zip(places, found, strict=True):
            self._narrator.say(f"changed and committed under the {place.front_end}:")
            self._show({f"  {what}": value for what, value in figures.items()})

    def _turn(self, here: Place, there: Place) -> Turn:
        return Turn(
            here=here,
            there=there,
            plain=self._plain,
            stratum0=self._stratum0,
            images=_IMAGES,
            directory=self._directory,
            large=self._large,
            narrator=self._narrator,
        )

    async def _start(self) -> None:
        self._narrator.step("Private daemons: object store, publisher, two nodes, and a plain Docker to compare with")
        self._narrator.say(self._choice)
        with self._narrator.timed(f"SeaweedFS, and the publisher of a {self._stratum0.kind} repository"):
            await self._stratum0.start()
        if self._server is not None:
            with self._narrator.timed(f"an HTTP server of the repository, {self._server.url}"):
                await self._server.start()
        with self._narrator.timed(f"node {self._a.name}: graphdriver, dockerd, which keeps the images"):
            await self._a.start()
        with self._narrator.timed(f"node {self._b.name}: snapshotter, containerd, which keeps the images, dockerd"):
            await self._b.start()
        with self._narrator.timed("a registry, and the converter, with a wish list of one image"):
            await self._registry.start()
            await self._push.start_converter()
        with self._narrator.timed("plain: containerd, dockerd with overlay2"):
            await self._plain.start()
        version = (await self._plain.docker("version", "--format={{.Server.Version}}")).text
        self._narrator.say(f"Docker {version}")

    async def _publish(self, base: BaseImage | Path) -> None:
        self._narrator.step("The image becomes published layers and a thin image")
        if isinstance(base, Path):
            with self._narrator.timed(f"the file system of {base.name}, in one piece"):
                base = await flatten(base, self._plain, self._directory)
        playground = self._directory / "playground.tar"
        write_playground(playground)
        regular = self._directory / "regular.tar"
        write_image(regular, name=_IMAGES.regular, layers=[base.rootfs, playground], config=base.config)
        image = f"{self._registry.address}/{_IMAGES.regular}"
        with self._narrator.timed(f"{_IMAGES.regular}, an ordinary image, loaded on plain and pushed to the registry"):
            await self._plain.docker("load", input=regular)
            await self._plain.docker("tag", _IMAGES.regular, image)
            await self._plain.docker("push", image)
        with self._narrator.timed(
            f"docker2cvmfs make-thin: its layers published, {_IMAGES.thin} loaded on node {self._a.name}"
        ):
            converted = await run(
                *(sys.executable, "-m", "services.docker2cvmfs", "make-thin", "--insecure", image),
                *(self._stratum0.repository, "--publisher", self._stratum0.url, "--load", "--tag", _IMAGES.thin),
                env={**self._stratum0.store.environment, **self._a.engine.docker_env},
                timeout=1200,
            )
        for line in converted.text.splitlines():
            self._narrator.say(f"  {line}")
        thin = self._directory / "thin.tar"
        with self._narrator.timed(f"{_IMAGES.thin} to node {self._b.name}, by docker save and docker load"):
            await self._a.engine.docker("save", _IMAGES.thin, output=thin)
            await self._b.engine.docker("load", input=thin)
        if self._mounted is not None:
            with self._narrator.timed(f"node {self._b.name} mounts the repository"):
                await self._mounted.mount(self._stratum0)
        descriptor = await read_descriptor(self._a.engine, _IMAGES.thin, self._directory)
        inspected = await self._plain.docker("image", "inspect", "--format={{.Size}}", _IMAGES.regular)
        self._figures["size of the ordinary image"] = size_text(int(inspected.text))
        self._figures["size of the thin image's descriptor"] = size_text(len(descriptor.encode()))

    async def _links_told(self) -> str | None:
        """Return what node A says of hard links in its containers, where they may not look like what they are."""
        if self._server is None:
            # The repository is a directory, whose files the kernel follows as it does those of regular images.
            return None
        status = dict(json.loads((await self._a.engine.docker("info", "--format={{json .DriverStatus}}")).text))
        told = str(status[HARD_LINKS])
        return None if told == HARD_LINKS_KEPT else told

    def _show(self, figures: Figures) -> None:
        for what, value in figures.items():
            self._narrator.say(f"{what:<44}{value:>12}")
