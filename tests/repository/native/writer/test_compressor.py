"""Objects are named by their compressed bytes, so that these have to be the stock tools' where theirs are continued."""

import io
import random
import zlib
from itertools import pairwise
from typing import Literal

import pytest

from services.repository.native.format import RepositoryFormat
from services.repository.native.writer.compressor import Compressor, Pieces
from tests.support.golden import GOLDEN


def test_zlib_makes_the_objects_that_the_real_server_made() -> None:
    """A Python whose zlib is another library than the original one would store everything a second time."""
    compressor = Compressor(RepositoryFormat(compressor="zlib"))
    compared = 0
    for path in GOLDEN.glob("data/??/*"):
        stored = path.read_bytes()
        try:
            content = zlib.decompress(stored)
        except zlib.error:
            continue  # stored as it is
        assert compressor.compress(content) == stored
        sink = io.BytesIO()
        name = compressor.compress_stream(io.BytesIO(content), sink)
        assert path.name.startswith(str(name)[2:])
        compared += 1
    assert compared > 100


@pytest.mark.parametrize("library", ["zlib", "igzip"])
def test_what_is_compressed_in_pieces_is_one_stream_whatever_it_was_made_of(library: Literal["zlib", "igzip"]) -> None:
    compressor = Compressor(RepositoryFormat(compressor=library))
    content = random.Random(1).randbytes(60_000).hex().encode()  # noqa: S311 - the same content every time
    forms = [b"", b"short", content, b"X" + content[1:], content + b"more", content[:-1], content[:50_000], b"end"]
    for first, second in pairwise([*forms, *reversed(forms)]):
        made = compressor.compress_pieces(second, compressor.compress_pieces(first, Pieces()))
        assert zlib.decompress(made.stored) == made.content == second
        assert made.stored == compressor.compress_pieces(second, Pieces(first)).stored


def test_only_pieces_that_have_changed_are_compressed_again() -> None:
    compressor = Compressor(RepositoryFormat())
    content = bytes(range(256)) * 1024
    before = compressor.compress_pieces(content, Pieces())
    after = compressor.compress_pieces(content[:100_000] + b"?" + content[100_001:], before)
    same = [old is new for old, new in zip(before.pieces, after.pieces, strict=True)]
    assert same == [True, True, True, False, True, True, True, True]
