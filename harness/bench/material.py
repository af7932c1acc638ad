"""What the benchmarks load and what they write into containers."""

import asyncio
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.engine import Engine
from harness.images import write_image

__all__ = ["LARGE_FILE", "SMALL_FILES", "Material", "make_material", "make_variants"]

SMALL_FILES: Final = """
import os
os.makedirs("/many")
for group in range(300):
    os.mkdir(f"/many/{group}")
    for number in range(100):
        with open(f"/many/{group}/file-{number}.txt", "wb") as file:
            file.write(f"{group} {number} ".encode() * (number + 1) * 3)
"""
"""Writes 30,000 small files of 12 bytes to 3 kB in 300 directories."""

LARGE_FILE: Final = """
import glob, os, sys
left = int(sys.argv[1])
names = [name for name in sorted(glob.glob("/usr/**", recursive=True)) if os.path.isfile(name)]
content = b"".join(open(name, "rb").read() for name in names)
with open("/large", "wb") as file:
    while left:
        left -= file.write(content[:left])
"""
"""Writes one file of as many bytes as its argument says, made of what a Debian system consists of."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """Docker archives for loading.

    Variants have the same files but for one, so that each can be loaded without removing the one before: ext4 looks at
    every inode that was freed within the last minutes before it takes another, and a load after a removal would measure
    that.
    """

    base: Path
    """Debian, 160 MB."""
    debian: list[Path]
    """Variants of it."""
    many_files: list[Path]
    """Variants of an image of 30,000 small files."""


async def make_material(engine: Engine, *, rootfs: Path, base_image: str, directory: Path, variants: int) -> Material:
    """Make the archives from a tar of a Debian root file system; leaves the base image on the engine."""
    base = directory / "base.tar"
    await asyncio.to_thread(write_image, base, name=base_image, layers=[rootfs])
    await engine.docker("load", input=base)
    await engine.docker("run", "--name=writer", "--network=none", base_image, "python3", "-c", SMALL_FILES)
    many = directory / "many.tar"
    await engine.docker("cp", "writer:/many", "-", output=many)
    return Material(
        base=base,
        debian=await asyncio.to_thread(make_variants, "debian", rootfs, directory, variants),
        many_files=await asyncio.to_thread(make_variants, "many", many, directory, variants),
    )


def make_variants(name: str, layer: Path, directory: Path, count: int) -> list[Path]:
    """Write docker archives of the images `NAME:0` and so on, each a layer with a file of its own in it (blocking)."""
    archives = [directory / f"{name}-{number}.tar" for number in range(count)]
    for number, archive in enumerate(archives):
        varied = shutil.copyfile(layer, directory / "layer.tar")
        with tarfile.open(varied, "a") as tar:
            tar.addfile(tarfile.TarInfo(f"{name}-{number}"))
        write_image(archive, name=f"{name}:{number}", layers=[varied])
    return archives
