"""The publisher's HTTP interface as its clients see it; the one place that talks to it."""

from services.common.publisher_api.client import PublisherApi
from services.common.publisher_api.errors import (
    ImagesNotOfferedError,
    NotKnownError,
    PublisherApiError,
    PublisherRefusedError,
    PublisherTimeoutError,
    PublisherTokenError,
    PublisherUnreachableError,
)
from services.common.publisher_api.image_model import (
    CollectedLayer,
    Collection,
    ImageAnswer,
    ImageCheck,
    ImageLayer,
    ImagePage,
    ImageRequest,
    ImagesChecked,
    ImageVersion,
    ImageVersions,
    KeptLayer,
    Steps,
    UnknownImages,
)
from services.common.publisher_api.images import ImagesApi
from services.common.publisher_api.model import (
    CheckSummary,
    Disagreement,
    LastCheck,
    Layer,
    LayerPage,
    PublisherEntry,
    Status,
)

__all__ = [
    "CheckSummary",
    "CollectedLayer",
    "Collection",
    "Disagreement",
    "ImageAnswer",
    "ImageCheck",
    "ImageLayer",
    "ImagePage",
    "ImageRequest",
    "ImageVersion",
    "ImageVersions",
    "ImagesApi",
    "ImagesChecked",
    "ImagesNotOfferedError",
    "KeptLayer",
    "LastCheck",
    "Layer",
    "LayerPage",
    "NotKnownError",
    "PublisherApi",
    "PublisherApiError",
    "PublisherEntry",
    "PublisherRefusedError",
    "PublisherTimeoutError",
    "PublisherTokenError",
    "PublisherUnreachableError",
    "Status",
    "Steps",
    "UnknownImages",
]
