"""A large layer passes the publisher in constant memory."""

import os
from pathlib import Path

from harness.peak_memory import peak_memory
from harness.s3 import S3Access
from services.common.archive.compression import write_archive
from tests.support.publisher import PublisherProcess, upload

_SIZE = 640 << 20
_RANDOM = 192 << 20
_LIMIT = 150 << 20


async def test_a_layer_of_640_mb_takes_less_than_150_mb(
    publisher: PublisherProcess, bucket: S3Access, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    zeros = bytes(16 << 20)
    with (tree / "large").open("wb", buffering=0) as file:
        for _ in range(_RANDOM >> 20):
            file.write(os.urandom(1 << 20))
        for _ in range((_SIZE - _RANDOM) // len(zeros)):
            file.write(zeros)
    archive = write_archive(tree, tmp_path / "large.tar.zst")
    (tree / "large").unlink()
    assert archive.uncompressed_size > _SIZE
    assert archive.size > _RANDOM
    await upload(bucket, archive)
    archive.path.unlink()
    publisher.daemon.forks = None
    async with publisher.running():
        await publisher.published(archive, timeout=300)
        peak = peak_memory(publisher.daemon.pid)
    assert (publisher.root / archive.digest / "large").stat().st_size == _SIZE
    (publisher.root / archive.digest / "large").unlink()
    assert peak < _LIMIT
