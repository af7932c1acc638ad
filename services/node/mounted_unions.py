"""Who holds which union mounted, across restarts of this program and of its front end."""

import asyncio
import os
import re
from pathlib import Path
from typing import Final

import structlog

from services.common.errors import InvalidValueError
from services.common.streams import run_in_thread
from services.node.errors import LineageError, UnknownLayerError
from services.node.layers import Layer, LayerId, LayerStore
from services.node.lineage import Lineage
from services.node.mounts import is_upper_in_use, mount_table, remove_mount_point, unmount
from services.node.union import UnionBuilder

__all__ = ["MountedUnions"]

_log = structlog.get_logger(__name__)

_COUNT: Final = "held"
"""File in a layer's directory: how often its union is held, while it is mounted."""
_LOWERS = re.compile(r"lowerdir\+?=([^,]*)")


class MountedUnions:
    """Counts who holds each union mounted.

    A front end asks for a union and gives it back in pairs, but pairs get broken: a start that failed is given back
    without having been asked for, a program killed in between never gives back. So giving back at zero does nothing,
    and the counts are kept on disk, for a process of this program that takes over from a killed one: a union that is
    given back too early takes the files away under a running container. A new front end has forgotten what an earlier
    one held, but for the containers that it finds running, so it begins with one for each mounted union.

    The methods for one layer are called one at a time; the caller locks.
    """

    def __init__(self, *, layers: LayerStore, builder: UnionBuilder) -> None:
        self._layers = layers
        self._builder = builder
        self._counts: dict[LayerId, int] = {}
        self._lost: set[LayerId] = set()
        """Unions that are held, but had to be unmounted and could not be mounted anew yet."""

    async def adopt(self) -> dict[Layer, frozenset[str] | None]:
        """Take over the unions that an earlier process left mounted.

        Returns
        -------
        dict of Layer to frozenset of str or None
            Their layers, each with the short paths of what its union stands on; None where that cannot be seen.
        """
        table = await asyncio.to_thread(lambda: list(mount_table()))
        adopted: dict[Layer, frozenset[str] | None] = {}
        # The mount table has real paths, the home may have been given by way of a link.
        prefix = await asyncio.to_thread(os.path.realpath, self._layers.home / "layers") + "/"
        for mount in table:
            if mount.kind == "overlay" and mount.point.startswith(prefix) and mount.point.endswith("/merged"):
                name = mount.point.removeprefix(prefix).removesuffix("/merged")
                try:
                    layer_id = LayerId(name)
                    layer = await asyncio.to_thread(self._layers.find, layer_id)
                except (UnknownLayerError, InvalidValueError):
                    await asyncio.to_thread(unmount, mount.point)
                    continue
                except LineageError as error:
                    # Somebody may be working in it, and can give it back.
                    _log.error("mounted_layer_unknown", mount_point=mount.point, error=str(error))
                    self._counts[layer_id] = await asyncio.to_thread(self._read_count, layer_id)
                    continue
                self._counts[layer.id] = await asyncio.to_thread(self._read_count, layer.id)
                adopted[layer] = _lowers(mount.options)
        for layer in await asyncio.to_thread(self._hidden):
            _log.warning("mounted_union_hidden", layer=layer.id)
            self._counts[layer.id] = await asyncio.to_thread(self._read_count, layer.id)
            self._lost.add(layer.id)
            adopted[layer] = None
        return adopted

    def _hidden(self) -> list[Layer]:
        """Find the unions that somebody works in, and that are not mounted as far as can be seen from here.

        A front end that runs in a container can get its directory mounted anew when it is started again, after the old
        mount was given up. What was mounted in the old one is hidden by the new one then, and lives on in containers
        only. Such a union is mounted a second time when it is asked for.
        """
        found = []
        for point in self._layers.home.glob("layers/*/merged"):
            try:
                layer = self._layers.find(LayerId(point.parent.name))
            except (UnknownLayerError, InvalidValueError, LineageError):
                # Nobody can ask for it.
                continue
            if layer.id not in self._counts and is_upper_in_use(
                layer.diff.name, layer.merged.name, directory=layer.directory
            ):
                found.append(layer)
        return found

    async def begin(self) -> None:
        """Count every mounted union as held once: a new front end has come."""
        for layer_id in self.mounted():
            await self._set(layer_id, 1)

    async def acquire(self, layer: Layer, lineage: Lineage, *, label: str) -> Path:
        """Return a layer's union, mounted.

        Parameters
        ----------
        lineage
            What lies below the layer; only that of the first mount counts.
        label
            SELinux context; only that of the first mount counts.
        """
        if layer.id in self._counts and layer.id not in self._lost and not await self._builder.answers(layer, lineage):
            # What runs in it has lost its files for good; whoever comes now gets them from the client's successor.
            _log.warning("union_on_a_dead_repository_replaced", layer=layer.id)
            self._lost.add(layer.id)
            await asyncio.to_thread(unmount, layer.merged)
        if layer.id not in self._counts or layer.id in self._lost:
            count = self._counts.get(layer.id, 0) + 1
            # What nobody counts, nobody would give back: a mount that cannot be counted is none.
            await self._builder.mount(layer, lineage, label=label, then=lambda: self._write_count(layer.id, count))
            self._counts[layer.id] = count
            self._lost.discard(layer.id)
        else:
            await self._set(layer.id, self._counts[layer.id] + 1)
        return layer.merged

    async def release(self, layer_id: LayerId) -> bool:
        """Give a union back; return whether it is not mounted any more."""
        match self._counts.get(layer_id, 0):
            case 0:
                pass
            case 1:
                await self.discard(layer_id)
            case count:
                await self._set(layer_id, count - 1)
                return False
        return True

    async def _set(self, layer_id: LayerId, count: int) -> None:
        await run_in_thread(lambda: self._write_count(layer_id, count))
        self._counts[layer_id] = count

    async def discard(self, layer_id: LayerId) -> None:
        """Unmount a union whatever the count says."""
        await run_in_thread(lambda: remove_mount_point(self._layers.mount_point(layer_id)))
        self._counts.pop(layer_id, None)
        self._lost.discard(layer_id)

    def _write_count(self, layer_id: LayerId, count: int) -> None:
        place = self._layers.directory(layer_id) / _COUNT
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # One write of always the same length, which a kill does not tear.
            os.pwrite(descriptor, f"{count:8d}\n".encode(), 0)
        finally:
            os.close(descriptor)

    def _read_count(self, layer_id: LayerId) -> int:
        try:
            return max(1, int((self._layers.directory(layer_id) / _COUNT).read_bytes()))
        except (FileNotFoundError, ValueError):
            # Killed between the mount and the first count.
            return 1

    def __contains__(self, layer_id: LayerId) -> bool:
        """Return whether a layer's union is mounted."""
        return layer_id in self._counts

    def mounted(self) -> list[LayerId]:
        """Return the ids of the layers whose unions are mounted."""
        return list(self._counts)


def _lowers(options: str) -> frozenset[str] | None:
    paths = frozenset(path for value in _LOWERS.findall(options) for path in value.split(":"))
    # Numbers stand for so many paths that they did not fit (`numbered`).
    return None if any(path.isdigit() for path in paths) else paths
