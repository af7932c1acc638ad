"""Objects are named by their compressed bytes, so that these have to be the stock tools' where theirs are continued."""

import io
import zlib

from services.publisher.repository.native.format import RepositoryFormat
from services.publisher.repository.native.writer.compressor import Compressor
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
