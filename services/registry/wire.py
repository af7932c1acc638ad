"""JSON objects from outside, as the Go programs read them that write nearly all of them."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

__all__ = ["WireObject"]


class WireObject(BaseModel):
    """A JSON object: fields that are not known are ignored, and null is the same as nothing.

    Go writes null for an empty list or map, and reads it into any type as its empty value.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, fields: Any) -> Any:  # noqa: ANN401 - whatever the document holds
        if not isinstance(fields, dict):
            return fields
        return {name: value for name, value in fields.items() if value is not None}
