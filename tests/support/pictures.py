"""What a screenshot shows, as far as a program can tell."""

import struct
import zlib
from dataclasses import dataclass

__all__ = ["Picture"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG of eight bits per channel."""

    width: int
    height: int
    corner: tuple[int, int, int]
    """Red, green and blue of the pixel in the upper left corner."""
    variety: int
    """Number of different lines, as they are encoded; a blank picture has two, however large it is."""

    @classmethod
    def parse(cls, content: bytes) -> "Picture":
        """Read a PNG."""
        assert content.startswith(_SIGNATURE)
        position, data, header = len(_SIGNATURE), b"", b""
        while position < len(content):
            length, kind = struct.unpack_from(">I4s", content, position)
            body = content[position + 8 : position + 8 + length]
            if kind == b"IHDR":
                header = body
            elif kind == b"IDAT":
                data += body
            position += 12 + length
        width, height, depth, colour = struct.unpack_from(">IIBB", header)
        assert depth == 8
        stride = 1 + width * {2: 3, 6: 4}[colour]
        lines = zlib.decompress(data)
        # Whatever filter encodes the first line, its first pixel is as it is.
        red, green, blue = lines[1:4]
        variety = len({lines[start : start + stride] for start in range(0, len(lines), stride)})
        return cls(width, height, (red, green, blue), variety)
