"""Hostile texts on every route: python -m benchmarks.hostile_text [--size 1000000] [--only TEXT] [--repeats N]

A gateway with the fake engine runs in a process of its own. Each field in /openapi.json gets each kind of text in turn:
a million characters in a body, elsewhere what a URL or a header can hold. A third process requests /health/live
meanwhile. It prints the slowest answers, and the slowest /health/live.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import httpx

from benchmarks.live_probe import LiveProbe
from tests.support.hostile import REPEATS, SIZE, asked, cases
from tests.support.live import live
from tests.support.v1 import input_png

IDLE_S = 3.0
LAG_MS, ANSWER_S = 30.0, 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=SIZE, help="characters of a text in a body")
    parser.add_argument("--only", default="", help="a part of the names of the routes and fields to try")
    parser.add_argument("--repeats", type=int, default=len(REPEATS), help="how many of the repeats to try")
    said = parser.parse_args()
    config = {"generation": {"max_px": 128, "max_steps": 8, "max_batch_size": 2}, "queue": {"waiting": 100_000}}
    with (
        tempfile.TemporaryDirectory() as folder,
        live(Path(folder), config=config) as gateway,
        httpx.Client(base_url=gateway.url, timeout=120) as client,
    ):
        client.post("/sdapi/v1/reload-checkpoint")
        client.post("/api/v1/uploads", files={"image": ("a.png", input_png())}).raise_for_status()  # starts a decoder
        places = [case for case in cases(client.get("/openapi.json").json()) if said.only in str(case)]
        places = [case for case in places if "queue/pause" not in case.path]
        lags, answers = [], []
        with LiveProbe(gateway.url) as probe:
            time.sleep(IDLE_S)
            idle_s = probe.slowest_s()
            for case in places:
                for unit in REPEATS[: said.repeats]:
                    answer, took_s = asked(client, case, unit, said.size)
                    lag_s = probe.slowest_s()
                    if answer is not None:
                        name = f"{case} {unit[:8]!r}: {answer.status_code}"
                        lags.append((lag_s * 1000, name))
                        answers.append((took_s, name))
    print(f"{len(places)} places, {len(answers)} requests; idle lag at most {idle_s * 1000:.0f} ms")
    print(f"lag of /health/live at most {max(lags)[0]:.0f} ms, above {LAG_MS:g} ms: {sum(x > LAG_MS for x, _ in lags)}")
    print(f"slowest answer {max(answers)[0]:.2f} s, above {ANSWER_S:g} s: {sum(x > ANSWER_S for x, _ in answers)}")
    for heading, found in (("lag, ms", lags), ("answer, s", answers)):
        print(heading)
        for value, name in sorted(found, reverse=True)[:10]:
            print(f"  {value:9.3f}  {name}")


if __name__ == "__main__":
    main()
