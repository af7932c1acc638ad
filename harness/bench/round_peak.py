"""`python -m harness.bench.round_peak`: run `converter once`; the last line is its processor time and peak memory.

In seconds and bytes; the time does not have the start of Python in it, which a daemon has once.
"""

import sys
import time

from harness.peak_memory import peak_memory
from services.converter.__main__ import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.argv[1:] = ["once"]
    began = time.process_time()
    status = main()
    print(time.process_time() - began, peak_memory())
    sys.exit(status)
