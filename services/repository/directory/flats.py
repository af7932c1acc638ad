"""The flat images of a tree: each is made in the directory of its batch, where no reader looks, and linked from there.

::

    .flat/XX/CONFIG                            -> ../../.batches/REVISION/flats/CONFIG[.others-read]
    .batches/.batch-REVISION/flats/CONFIG         the root file system, read-only for everybody but this publisher

So one is visible with its batch, and what a kill leaves of one is deleted with what else the batch had. Whoever has
resolved the name goes on reading the same files when the link leads elsewhere.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from services.common.deletion import delete_tree
from services.common.digest import Digest
from services.common.durable import sync_tree
from services.common.errors import InvalidValueError
from services.common.layout import layer_home
from services.common.sidecar import LayerSidecar, decode_directory, decode_path
from services.common.threads import Stop
from services.repository.directory.additions import add_generated
from services.repository.directory.batches import BATCHES
from services.repository.directory.stacking import StackedLayer, stack
from services.repository.ducc import is_ducc_flat
from services.repository.errors import ImageAdditionError
from services.repository.flat.configuration import read_configuration
from services.repository.flat.differences import DifferenceReports, Differences, log_differences
from services.repository.flat.modes import Modes
from services.repository.flat.singularity import generated_entries
from services.repository.image_platforms import PlatformImage, PlatformLayer
from services.repository.outputs import FlatOutput
from services.repository.public_names import FLAT_DIRECTORY, flat_home

__all__ = ["FlatIndex", "NewFlats", "staged_flats"]

FLATS: Final = "flats"
"""Directory of the flat images in that of a batch."""
_OTHERS_READ: Final = ".others-read"
"""What the name of one ends in that everybody may read all of."""
_TARGET: Final = re.compile(rf"\.\./\.\./\.batches/[0-9]{{1,18}}/{FLATS}/([0-9a-f]{{64}})((?:\.others-read)?)")
_ROOT_MODE: Final = 0o755


class FlatIndex:
    """What is published; blocking.

    Parameters
    ----------
    root
        Root of the repository.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def place(self, config: Digest) -> Path:
        """Return the place of the flat image of a configuration."""
        return self.root / flat_home(config)

    def target(self, config: Digest) -> str | None:
        """Return where the link of one leads; None where there is none, or none of this suite's that is published.

        What DUCC has made of the same configuration is as good as none.

        Raises
        ------
        ImageAdditionError
            Something is there that is not of this suite.
        """
        place = self.place(config)
        if not os.path.lexists(place) or self.is_duccs(config):
            return None
        target = os.readlink(place) if place.is_symlink() else ""
        match = _TARGET.fullmatch(target)
        if match is None or match[1] != config:
            raise ImageAdditionError(f"{place} is nothing that this suite has published: remove it by hand")
        return target if place.exists() else None

    def is_duccs(self, config: Digest) -> bool:
        """Tell whether a flat image is there that DUCC has made."""
        place = self.place(config)
        return place.is_dir() and not place.is_symlink() and is_ducc_flat(os.listdir(place))

    def configs(self) -> Iterator[Digest]:
        """Iterate over the configurations that have flat images, whoever made them, in no order."""
        for shelf in _names(self.root / FLAT_DIRECTORY):
            for name in _names(self.root / FLAT_DIRECTORY / shelf):
                try:
                    config = Digest(name)
                except InvalidValueError:
                    continue
                if config[:2] == shelf and self.place(config).exists():
                    yield config


class NewFlats:
    """The flat images that one transaction changes; blocking.

    Parameters
    ----------
    index
        What is published.
    staging
        Directory of the transaction, which becomes that of the batch.
    revision
        The revision that the batch will be.
    """

    def __init__(self, index: FlatIndex, staging: Path, revision: int) -> None:
        self._index = index
        self._staging = staging
        self._revision = revision
        self._changes: dict[Digest, str | None] = {}
        """Names in the batch; None for what is removed."""
        self.reports: dict[Digest, DifferenceReports] = {}
        """What people must know of those that have been made, by their configurations."""

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Undo what is changed while the context lasts, where that fails."""
        before = dict(self._changes)
        try:
            yield
        except BaseException:
            self._changes = before
            raise

    def put(self, images: Sequence[PlatformImage], output: FlatOutput, stop: Stop) -> None:
        """Make those flat images of an image that are not there yet as they are to be.

        Parameters
        ----------
        images
            The image for all its platforms.
        output
            How they are to be.
        stop
            Ends the work when somebody sets it.

        Raises
        ------
        ImageAdditionError
            One cannot be made.
        InterruptedError
            It was to stop.
        """
        for image in images:
            config = image.config_digest
            name = f"{config}{_OTHERS_READ if output.others_read else ''}"
            target = self._index.target(config)
            if target is not None and target.rpartition("/")[2] == name:
                self._changes.pop(config, None)
            elif self._changes.get(config) != name:
                try:
                    report = self._make(image, name, output, stop)
                except InterruptedError:
                    raise
                except (OSError, InvalidValueError) as error:
                    raise ImageAdditionError(f"the flat image of {config.oci} cannot be made: {error}") from error
                log_differences(config, report)
                self.reports[config] = report
                self._changes[config] = name

    def remove(self, config: Digest) -> None:
        """Take a flat image out, if it is there.

        Raises
        ------
        ImageAdditionError
            Something is there that is not of this suite.
        """
        self._index.target(config)
        if self._index.is_duccs(config):
            raise ImageAdditionError(f"{self._index.place(config)} is DUCC's: remove it by hand")
        self._changes[config] = None

    def drop_unused(self) -> None:
        """Delete what has been made in the batch and is no part of it after all."""
        used = set(self._changes.values())
        for name in _names(self._staging / FLATS):
            if name not in used:
                delete_tree(self._staging / FLATS / name)

    def links(self) -> Iterator[tuple[Path, str]]:
        """Give the links that are to be there when the batch is visible and that are not yet, and where they lead."""
        for config, name in self._changes.items():
            if name is not None and self._index.target(config) is None:
                yield self._index.place(config), self._target(name)

    def moved(self) -> Mapping[str, str]:
        """Return the published links that are to lead elsewhere when the batch is visible: their paths, and where."""
        return {flat_home(config): self._target(name) for config, name, _ in self._published() if name is not None}

    def removed(self) -> Mapping[str, str]:
        """Return the published links that are to go when the batch is visible: their paths, and where they lead."""
        return {flat_home(config): target for config, name, target in self._published() if name is None}

    def superseded(self) -> Iterator[str]:
        """Give the published directories that no link leads to when the batch is visible, relative to the root."""
        for config, _, target in self._published():
            yield os.path.normpath(f"{flat_home(config)}/../{target}")

    def _published(self) -> Iterator[tuple[Digest, str | None, str]]:
        """Give those changes of what is published already, with where the links lead now."""
        for config, name in self._changes.items():
            target = self._index.target(config)
            if target is not None:
                yield config, name, target

    def _target(self, name: str) -> str:
        return f"../../{BATCHES}/{self._revision}/{FLATS}/{name}"

    def _make(self, image: PlatformImage, name: str, output: FlatOutput, stop: Stop) -> DifferenceReports:
        configuration = read_configuration(image.config)
        differences = Differences()
        differences.variables(configuration.left_out)
        layers = [self._layer(layer) for layer in image.layers]
        place = self._staging / FLATS / name
        delete_tree(place)
        place.parent.mkdir(exist_ok=True)
        # Nobody else may reach setuid files and devices before all of it is as it should be.
        place.mkdir(0o700)
        entries = stack(place, layers, modes=Modes(output.others_read), differences=differences, stop=stop)
        add_generated(place, generated_entries(configuration), differences)
        os.chmod(place, _ROOT_MODE)
        os.utime(place, (configuration.created, configuration.created))
        sync_tree(place, entries=entries)
        return differences.report()

    def _layer(self, layer: PlatformLayer) -> StackedLayer:
        """Find a layer in the batch, or among those that are published.

        Raises
        ------
        ImageAdditionError
            It is in neither.
        """
        homes = (self._staging / layer.digest, self._index.root / layer_home(layer.digest))
        for home in homes:
            try:
                content = (home / "layer.json").read_bytes()
            except FileNotFoundError:
                continue
            sidecar = LayerSidecar.parse(content, where=f"{home}/layer.json")
            return StackedLayer(
                tree=home / "layerfs",
                whiteouts=[decode_path(path) for path in sidecar.whiteouts],
                opaque=[decode_directory(path) for path in sidecar.opaque],
            )
        raise ImageAdditionError(f"layer {layer.digest} is not in the repository: publish it first")


def staged_flats(batch: Path) -> Iterator[str]:
    """Give the places, relative to the repository's root, of the flat images in a batch."""
    for name in _names(batch / FLATS):
        yield flat_home(Digest(name.removesuffix(_OTHERS_READ)))


def _names(directory: Path) -> Sequence[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return ()
