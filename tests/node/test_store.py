"""The client of the object store, which is loaded for the first commit."""

import json
import subprocess
import sys

import pytest

_LOADED = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.mark.parametrize(
    ("module", "late"),
    [
        ("services.graphdriver.process", {"aiobotocore", "botocore"}),
        # It speaks HTTP where somebody watches it, and nowhere else.
        ("services.snapshotter.process", {"aiobotocore", "aiohttp", "botocore"}),
    ],
)
def test_a_node_that_commits_nothing_loads_no_client(module: str, late: set[str]) -> None:
    loaded = subprocess.run([sys.executable, "-c", _LOADED, module], capture_output=True, text=True, check=True).stdout
    assert late.isdisjoint(json.loads(loaded))
