"""The dialect of SeaweedFS: its filer's own events, which know paths of files rather than keys of objects."""

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel

from services.publisher.notification.model import ObjectCreated, layer_created

__all__ = ["FilerNotification"]


class _Entry(BaseModel):
    name: str


class _Message(BaseModel):
    new_entry: _Entry | None = None
    new_parent_path: str = ""


class FilerNotification(BaseModel):
    """One event of the filer. It names every chunk of the file, so it grows with the object: 212 KB at 5 GB."""

    event_type: Literal["create", "update", "rename", "delete"]
    key: str
    message: _Message

    def created(self, bucket: str) -> Iterator[ObjectCreated]:
        """Give the layer that the event announces in a bucket, if it does."""
        entry = self.message.new_entry
        if self.event_type == "delete" or entry is None:
            return
        # A renamed file is announced under its old path; where it is now is in the message.
        path = f"{self.message.new_parent_path}/{entry.name}" if self.event_type == "rename" else self.key
        prefix = f"/buckets/{bucket}/"
        layer = layer_created(path.removeprefix(prefix)) if path.startswith(prefix) else None
        if layer is not None:
            yield layer
