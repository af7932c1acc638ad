"""What the S3 client knows of S3, without what nobody here reads.

botocore's files hold the documentation of every field, and the addresses of all services everywhere. Read as they are,
they stay in memory with 12 MB, four fifths of what the client needs.
"""

import gzip
import json
from pathlib import Path
from typing import Any, Final

from botocore.loaders import JSONFileLoader, Loader

__all__ = ["client_data"]

_SERVICE: Final = "s3"


def client_data() -> Any:  # noqa: ANN401 - botocore has no types
    """Return a botocore component that loads its data files."""
    return Loader(file_loader=_SlimFiles())


class _SlimFiles(JSONFileLoader):  # type: ignore[misc] # botocore has no types
    def load_file(self, file_path: str) -> Any:  # noqa: ANN401 - any JSON document
        """Return what is in a file, whose name is given without its extension; None if it is not there."""
        plain, compressed = Path(f"{file_path}.json"), Path(f"{file_path}.json.gz")
        if compressed.exists():
            text = gzip.decompress(compressed.read_bytes())
        elif plain.exists():
            text = plain.read_bytes()
        else:
            return None
        return json.loads(text, object_pairs_hook=_slim)


def _slim(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: _slim_value(key, value) for key, value in pairs}


def _slim_value(key: str, value: Any) -> Any:  # noqa: ANN401 - any JSON document
    if key == "services":
        return {name: service for name, service in value.items() if name == _SERVICE}
    # A field can have that name, too; it is then no text.
    return "" if key == "documentation" and isinstance(value, str) else value
