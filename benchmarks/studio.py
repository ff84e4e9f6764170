"""Load time and size of the studio: python -m benchmarks.studio [--visits 20]

Each visit uses a new browser profile, on the same cores as the gateway. First paint is reported by Chromium itself;
beside it, in turn, is that of one line of text, /health/live: what Chromium takes for any page.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from tests.support.chromium import chromium
from tests.support.live import live

PAINTED = "new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)))"
TOLD = """() => ({
  paint: performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null,
  usable: performance.now(),
  bytes: [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
    .filter((one) => !one.name.includes('/api/')).reduce((sum, one) => sum + one.encodedBodySize, 0),
})"""


def visit(browser: Any, url: str, there: str) -> dict[str, float]:
    """Milliseconds since the visit began, and bytes, once `there` is on the page."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.goto(url, wait_until="commit")
    page.wait_for_selector(there, state="attached")
    page.evaluate(PAINTED)
    told: dict[str, float] = page.evaluate(TOLD)
    context.close()
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visits", type=int, default=20)
    visits = parser.parse_args().visits
    with tempfile.TemporaryDirectory() as folder, live(Path(folder)) as gateway, chromium() as browser:
        told, floor = [], []
        for _ in range(visits):
            told.append(visit(browser, gateway.url, "#model option"))
            floor.append(visit(browser, f"{gateway.url}/health/live", "body"))
    print(f"of {visits} first visits each, in milliseconds")
    for says, times in (
        ("studio, first contentful paint", [one["paint"] for one in told]),
        ("a line of text, the same", [one["paint"] for one in floor]),
        ("studio, models in the form", [one["usable"] for one in told]),
    ):
        print(f"{says}: median {median(times):.0f}, at most {max(times):.0f}")
    print(f"the page with all its parts: {told[0]['bytes'] / 1000:.0f} kB")


if __name__ == "__main__":
    main()
