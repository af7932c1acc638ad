import subprocess
import sys

import pytest

from services.common.object_store.client_data import client_data

_OPEN = """
import asyncio, gc, tracemalloc

from harness.s3 import S3Access
from services.common.object_store.bucket import Bucket

async def opened():
    access = S3Access(endpoint="http://127.0.0.1:1", bucket="layers", access_key="key", secret_key="secret")
    tracemalloc.start()
    async with Bucket.open(access.settings):
        gc.collect()
        print(tracemalloc.get_traced_memory()[0])

asyncio.run(opened())
"""


def test_an_open_bucket_takes_little_memory() -> None:
    ended = subprocess.run([sys.executable, "-c", _OPEN], capture_output=True, text=True, check=True)
    # 12 MB with all that botocore's files hold.
    assert int(ended.stdout) < 5_000_000


def test_what_is_read_is_there() -> None:
    data = client_data()
    model = data.load_service_model("s3", "service-2")
    assert model["operations"]["PutObject"]["documentation"] == ""
    assert "Bucket" in model["shapes"][model["operations"]["PutObject"]["input"]["shape"]]["members"]
    assert {*data.load_data("endpoints")["partitions"][0]["services"]} == {"s3"}


def test_what_is_not_there() -> None:
    with pytest.raises(Exception, match="nothing-of-that-name"):
        client_data().load_data("nothing-of-that-name")
