"""`python -m harness.bench.peak ARGUMENT...`: run `docker2cvmfs`; the last line is its peak memory, in bytes."""

import sys

from harness.peak_memory import peak_memory
from services.docker2cvmfs.__main__ import main

__all__: list[str] = []

if __name__ == "__main__":
    status = main()
    print(peak_memory())
    sys.exit(status)
