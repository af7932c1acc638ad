"""The file that says how a repository's objects are made."""

import pytest

from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.format import RepositoryFormat


@pytest.mark.parametrize(
    "chosen", [RepositoryFormat(), RepositoryFormat(compressor="zlib"), RepositoryFormat(hash="shake128")]
)
def test_what_is_written_is_read(chosen: RepositoryFormat) -> None:
    assert RepositoryFormat.parse(chosen.encode()) == chosen


def test_the_document() -> None:
    document = b'{\n "version": "1",\n "compressor": "igzip",\n "hash": "sha1"\n}\n'
    assert RepositoryFormat().encode() == document


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is no JSON"),
        (b"\xff", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"[]", "is no JSON object"),
        (b'{"version": "2"}', "version is '2', not 1"),
        (b'{"version": 1}', "version is 1, not 1"),
        (b'{"compressor": "zstd"}', "compressor is 'zstd', not igzip or zlib"),
        (b'{"hash": ["sha1"]}', r"hash is \['sha1'\], not sha1 or shake128"),
        (b'{"level": 6}', "'level' is nothing that can be chosen"),
    ],
)
def test_what_is_none_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(BrokenRepositoryError, match=reason):
        RepositoryFormat.parse(content)
