"""`python -m harness.bench.peak ARGUMENT...`: run `docker2cvmfs` and print its peak memory, in kB, as the last line."""

import sys
from pathlib import Path

from services.docker2cvmfs.__main__ import main

__all__: list[str] = []

if __name__ == "__main__":
    status = main()
    # getrusage would include the peak of the process that started this one.
    (peak,) = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    print(peak)
    sys.exit(status)
