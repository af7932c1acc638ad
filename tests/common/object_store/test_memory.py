import asyncio
import json
import os
import sys
from pathlib import Path

from harness.seaweedfs import SeaweedFS

MIB = 1 << 20


async def test_memory_does_not_grow_with_the_archive(seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.transfer_memory", str(tmp_path), str(100 * MIB), str(512 * MIB)),
        env={**os.environ, **seaweedfs.environment},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await program.communicate()

    assert program.returncode == 0
    after_100_mib, after_512_mib = json.loads(output)
    assert after_512_mib < 200 * MIB
    assert after_512_mib - after_100_mib < 80 * MIB
