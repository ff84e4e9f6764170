"""python -m benchmarks.studio [--visits 20]: how soon the studio is there, and how much of it there is.

Each visit is a browser that was never here, on the same cores as the gateway. First paint is what Chromium itself
reports; usable is when the models are in the form.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from tests.chromium import chromium
from tests.live import live

TOLD = """() => ({
  paint: performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null,
  usable: performance.now(),
  bytes: [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
    .filter((one) => !one.name.includes('/api/')).reduce((sum, one) => sum + one.encodedBodySize, 0),
})"""


def visit(browser: Any, url: str) -> dict[str, float]:
    """Milliseconds since the visit began, and bytes."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.goto(url, wait_until="commit")
    page.wait_for_selector("#model option", state="attached")
    told: dict[str, float] = page.evaluate(TOLD)
    context.close()
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visits", type=int, default=20)
    visits = parser.parse_args().visits
    with tempfile.TemporaryDirectory() as folder, live(Path(folder)) as gateway, chromium() as browser:
        told = [visit(browser, gateway.url) for _ in range(visits)]
    for name, says in (("paint", "first contentful paint"), ("usable", "models in the form")):
        times = [one[name] for one in told]
        print(f"{says}: median {median(times):.0f} ms, at most {max(times):.0f} ms, of {visits} first visits")
    print(f"the page with all its parts: {told[0]['bytes'] / 1000:.0f} kB")


if __name__ == "__main__":
    main()
