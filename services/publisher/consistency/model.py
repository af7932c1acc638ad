"""The ways in which repository, journal and bucket can disagree about a layer, or an image."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.object_store.model import StoredLayer
from services.publisher.journal.model import LayerRecord, LayerSource, LayerState
from services.repository.interface import ListedLayer

__all__ = ["ADVICE", "Advice", "CheckOutcome", "Disagreement", "Finding", "Sighting"]


class Disagreement(StrEnum):
    """What is wrong with a layer or an image."""

    LOST = "lost"
    NOT_IN_REPOSITORY = "not_in_repository"
    NOT_WHOLE = "not_whole"
    NOT_LINKED = "not_linked"
    NOT_IN_JOURNAL = "not_in_journal"
    NOT_RECORDED = "not_recorded"
    NOT_IN_BUCKET = "not_in_bucket"
    OTHER_OBJECT = "other_object"
    ARCHIVE_GONE = "archive_gone"
    ONLY_IN_REPOSITORY = "only_in_repository"
    IMAGE_LAYER_GONE = "image_layer_gone"
    IMAGE_NOT_IN_REPOSITORY = "image_not_in_repository"
    IMAGE_FORMER = "image_former"
    IMAGE_OTHER = "image_other"
    IMAGE_NOT_IN_JOURNAL = "image_not_in_journal"
    IMAGE_NOT_SHOWN = "image_not_shown"
    FLAT_ONLY_IN_REPOSITORY = "flat_only_in_repository"
    STORE_ONLY_IN_REPOSITORY = "store_only_in_repository"
    OF_DUCC = "of_ducc"


@dataclass(frozen=True, slots=True)
class Advice:
    """A disagreement, for people."""

    meaning: str
    """What is the case."""
    remedy: str
    """What to do."""
    harmless: bool = False
    """Whether images run as they should all the same."""


ADVICE: Final = {
    Disagreement.LOST: Advice(
        "published according to the journal, but neither in the repository nor in the bucket",
        "upload it again, by committing the image again or docker2cvmfs publish, then thinctl check --retry; else "
        "restore repository or bucket",
    ),
    Disagreement.NOT_IN_REPOSITORY: Advice(
        "published according to the journal, but not in the repository; the bucket has it",
        "thinctl retry DIGEST publishes it again, thinctl check --retry all of them",
    ),
    Disagreement.NOT_WHOLE: Advice(
        "something that has no sidecar is in the layer's place in the repository",
        "remove .layers/XX/DIGEST and the link DIGEST, if there is one, in a transaction of your own, then "
        "thinctl retry DIGEST",
    ),
    Disagreement.NOT_LINKED: Advice(
        "in the repository, but not at the path that thin images name",
        "set PUBLISHER_LAYOUT to what the repository was published with, or make the link "
        "DIGEST -> .layers/XX/DIGEST/layerfs in a transaction of your own",
    ),
    Disagreement.NOT_IN_JOURNAL: Advice("in the bucket, and unknown to the journal", "thinctl sweep records it"),
    Disagreement.NOT_RECORDED: Advice(
        "failed according to the journal, but in the repository", "thinctl retry DIGEST records it as published"
    ),
    Disagreement.NOT_IN_BUCKET: Advice(
        "to be published according to the journal, but not in the bucket",
        "upload it again: commit the image again, or docker2cvmfs publish",
    ),
    Disagreement.OTHER_OBJECT: Advice(
        "the object in the bucket is not of the size that was published: it was replaced",
        "find out who can overwrite objects; remove the object and upload the layer again",
    ),
    Disagreement.ARCHIVE_GONE: Advice(
        "in the repository, but its archive is not in the bucket any more",
        "nothing, if archives are removed on purpose; the layer could not be published again",
        harmless=True,
    ),
    Disagreement.ONLY_IN_REPOSITORY: Advice(
        "in the repository, and unknown to journal and bucket",
        "nothing: it was published with another journal, and images that name it run",
        harmless=True,
    ),
    Disagreement.IMAGE_LAYER_GONE: Advice(
        "fetched for an image and published according to the journal, but not in the repository",
        "thinctl images retry NAME for an image that names it fetches it again",
    ),
    Disagreement.IMAGE_NOT_IN_REPOSITORY: Advice(
        "an image that is published according to the journal, but not in the repository",
        "thinctl images retry NAME publishes it again, thinctl check --retry all of them",
    ),
    Disagreement.IMAGE_FORMER: Advice(
        "an image of which the repository shows a former version, as one that was restored from a back-up does",
        "thinctl images retry NAME publishes it again, thinctl check --retry all of them",
    ),
    Disagreement.IMAGE_OTHER: Advice(
        "an image whose documents in the repository are not those that were published",
        "find out who writes to .metadata; thinctl images retry NAME publishes them again",
    ),
    Disagreement.IMAGE_NOT_IN_JOURNAL: Advice(
        "an image in the repository that the journal does not know as published",
        "ask for it, so that it is kept up to date; its layers are not collected meanwhile",
        harmless=True,
    ),
    Disagreement.IMAGE_NOT_SHOWN: Advice(
        "an image whose outputs are not as they were published: its name does not lead to its root file systems, or "
        "podman does not find it in its store, or could not run it",
        "find out who changes the repository; thinctl images retry NAME makes what is missing again",
    ),
    Disagreement.FLAT_ONLY_IN_REPOSITORY: Advice(
        "a flat image in the repository that the journal does not know; it is never collected",
        "nothing, if jobs may run from it; else thin-repository remove NAME --flat CONFIG, or in a directory remove "
        "the link .flat/XX/CONFIG",
        harmless=True,
    ),
    Disagreement.STORE_ONLY_IN_REPOSITORY: Advice(
        "an image that podman finds in a store by a name that the journal does not have there; it is never collected",
        "ask for it with the output podman: from then on it is kept up to date, and can be removed",
        harmless=True,
    ),
    Disagreement.OF_DUCC: Advice(
        "an image, or a flat image, of DUCC's that has not been taken over",
        "converter adopt takes over images that are wanted; what no image needs stays, as jobs may run from it",
        harmless=True,
    ),
}
"""What each disagreement means, and what to do about it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One layer or image, and what is wrong with it."""

    digest: Digest
    kind: Disagreement
    image: ImageName | None = None
    """The image, whose digest it is; None for a layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What each of the three says of a layer; None where it does not know it."""

    digest: Digest
    record: LayerRecord | None
    listed: ListedLayer | None
    stored: StoredLayer | None

    def judge(self) -> Disagreement | None:
        """Say what is wrong, the worst first."""
        if self.listed is not None and not self.listed.whole:
            # Of a layer that nobody here knows, it is somebody else's: DUCC's layers have no sidecar.
            return None if self.record is None and self.stored is None else Disagreement.NOT_WHOLE
        if self.record is None:
            return Disagreement.ONLY_IN_REPOSITORY if self.stored is None else Disagreement.NOT_IN_JOURNAL
        if self.record.state is LayerState.PUBLISHED:
            return self._judge_published(self.record)
        return self._judge_unpublished(self.record)

    def _judge_published(self, record: LayerRecord) -> Disagreement | None:
        fetched = record.source is LayerSource.REGISTRY
        if self.listed is None and fetched:
            return Disagreement.IMAGE_LAYER_GONE
        if self.listed is None:
            return Disagreement.LOST if self.stored is None else Disagreement.NOT_IN_REPOSITORY
        if not self.listed.linked:
            return Disagreement.NOT_LINKED
        if self.stored is None:
            return None if fetched else Disagreement.ARCHIVE_GONE
        if record.archive_size not in (None, self.stored.size):
            return Disagreement.OTHER_OBJECT
        return None

    def _judge_unpublished(self, record: LayerRecord) -> Disagreement | None:
        if self.listed is not None:
            return Disagreement.NOT_RECORDED if record.state is LayerState.FAILED else None
        if self.stored is None and record.state in (LayerState.ANNOUNCED, LayerState.FAILED):
            return Disagreement.NOT_IN_BUCKET
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOutcome:
    """What a check has come to."""

    ended_at: float
    """In seconds since the epoch."""
    layers: int
    """Layers that were compared."""
    images: int
    """Images that were compared."""
    disagreements: int
    """Those that something has to be done about."""
    error: str | None = None
    """Why it could not be finished."""
