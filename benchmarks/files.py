"""Files in a folder, a shared folder and a bucket: python -m benchmarks.files [--count N]

Prints milliseconds to write and read an image of 1 MB (moto, a storage in Python on this machine, bounds those of the
bucket), and what the client of buckets adds to the gateway's process, beside boto3.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gateway.files.address import BucketAddress
from gateway.files.base import Files
from gateway.files.folder import Folder
from gateway.files.s3 import Bucket, S3Files, S3Options
from tests.support.s3 import KEY, SECRET, new_bucket, storage

MB = 2**20
CLIENTS = {
    "obstore": "from obstore.store import S3Store; S3Store('bucket', region='us-east-1')",
    "boto3": "import boto3; boto3.client('s3', region_name='us-east-1')",
}
PROBE = """
import resource, time
def rss(): return int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize()
before, began = rss(), time.process_time()
{code}
print((time.process_time() - began) * 1000, (rss() - before) / 2**20)
"""


def client_cost(code: str) -> tuple[float, float]:
    """Processor time (ms) and memory (MiB) of importing a client and making a store: the medians of five processes."""
    runs = []
    for _ in range(5):
        words = [sys.executable, "-c", PROBE.format(code=code)]
        output = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        runs.append([float(word) for word in output.split()])
    return statistics.median(run[0] for run in runs), statistics.median(run[1] for run in runs)


def median_ms(call: Callable[[int], object], count: int) -> float:
    times = []
    for number in range(count):
        began = time.perf_counter()
        call(number)
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50)
    count = parser.parse_args().count
    options = S3Options(endpoint=storage(), region="us-east-1", access_key_id=KEY, secret_access_key=SECRET)
    with tempfile.TemporaryDirectory() as name:
        places: dict[str, Files] = {
            "folder": Folder(Path(name) / "own", place="a folder"),
            "shared folder": Folder(Path(name) / "shared", place="a folder", is_shared=True),
            "bucket (moto)": S3Files(Bucket(BucketAddress(new_bucket()), options), "images", place="a bucket"),
        }
        image = os.urandom(MB)
        for label, files in places.items():
            files.prepare()
            shared = files.is_shared
            write_ms = median_ms(lambda n, f=files, c=shared: f.put(f"{n}.png", image, create=c), count)  # type: ignore[misc]
            read_ms = median_ms(lambda n, f=files: f.get(f"{n}.png"), count)  # type: ignore[misc]
            print(f"{label}: write {write_ms:.1f} ms, read {read_ms:.1f} ms")
    for label, code in CLIENTS.items():
        cost_ms, cost_mb = client_cost(code)
        print(f"{label}: {cost_ms:.0f} ms of processor time, {cost_mb:.1f} MiB")


if __name__ == "__main__":
    main()
