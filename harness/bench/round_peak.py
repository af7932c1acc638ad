"""`python -m harness.bench.round_peak`: run `converter once`; the last line is its peak memory, in bytes."""

import sys

from harness.peak_memory import peak_memory
from services.converter.__main__ import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.argv[1:] = ["once"]
    status = main()
    print(peak_memory())
    sys.exit(status)
