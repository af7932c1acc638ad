"""The publisher's HTTP interface as its clients see it; the one place that talks to it."""

from services.common.publisher_api.client import PublisherApi
from services.common.publisher_api.errors import (
    NoSuchLayerError,
    PublisherApiError,
    PublisherRefusedError,
    PublisherTimeoutError,
    PublisherTokenError,
    PublisherUnreachableError,
)
from services.common.publisher_api.model import CheckSummary, Disagreement, Layer, LayerPage, Status

__all__ = [
    "CheckSummary",
    "Disagreement",
    "Layer",
    "LayerPage",
    "NoSuchLayerError",
    "PublisherApi",
    "PublisherApiError",
    "PublisherRefusedError",
    "PublisherTimeoutError",
    "PublisherTokenError",
    "PublisherUnreachableError",
    "Status",
]
