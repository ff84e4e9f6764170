"""Screenshots of the studio for README.md, with images of the embedded model: python -m tools.screenshots [FOLDER]"""

from __future__ import annotations

import io
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import httpx
from openai import OpenAI
from PIL import Image

from tests.support.chromium import chromium
from tests.support.live import Live, live
from tests.support.studio import Studio, studio

GALLERY = (
    "a red house on a white background",
    "a yellow star above a purple square",
    "a green tree on a pink background",
    "three orange fish on a teal background",
    "a pink flower on a green background",
    "a white cat on a teal background",
    "two green triangles on yellow",
    "an orange butterfly on a purple background",
    "a blue bird on a yellow background",
    "a purple rocket on a black background",
    "a red umbrella on a gray background",
    "a yellow moon on a blue background",
)
QUALITY = 82


def draw(gateway: Live) -> None:
    """Images of the gallery, submitted through several protocols."""
    for seed, prompt in enumerate(GALLERY):
        body = {"prompt": prompt, "width": 128, "height": 128, "steps": 8, "seed": 40 + seed}
        httpx.post(f"{gateway.url}/sdapi/v1/txt2img", json=body, timeout=120).raise_for_status()


def wait_in_line(gateway: Live) -> list[threading.Thread]:
    """Jobs of four clients."""

    def openai() -> None:
        client = OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
        client.images.generate(model="flux2-tiny", prompt="a green apple on a pink background", n=4, size="128x128")

    def a1111() -> None:
        body = {
            "prompt": "a snowman on a pink background",
            "batch_size": 4,
            "steps": 8,
            "width": 128,
            "height": 128,
        }
        httpx.post(f"{gateway.url}/sdapi/v1/txt2img", json=body, timeout=120)

    native = {"num_images": 8, "steps": 8, "preview": True, "width": 128, "height": 128}
    httpx.post(
        f"{gateway.url}/api/v1/generate",
        json={**native, "prompt": "a red balloon on a teal background", "seed": 8},
    )
    threads = [threading.Thread(target=work) for work in (a1111, openai)]
    for count, thread in enumerate(threads, 1):
        thread.start()
        while httpx.get(f"{gateway.url}/api/v1/queue").json()["pending_count"] < count:
            pass
    httpx.post(f"{gateway.url}/api/generate", json={"prompt": "a yellow crown on a purple background", "steps": 8})
    return threads


def keep(page: Any, file: Path) -> None:
    with Image.open(io.BytesIO(page.screenshot())) as shot:
        shot.convert("RGB").save(file, "WEBP", quality=QUALITY, method=6)


def watch(tab: Studio, gateway: Live, file: Path) -> None:
    """An image being generated, and waiting jobs."""
    tab.say("a red balloon on a teal background")
    threads = wait_in_line(gateway)
    tab.page.wait_for_selector("#stage .drawing img:not([hidden])")
    tab.page.wait_for_selector(".job .facts:has-text('picture 2 of')")
    tab.page.wait_for_timeout(700)
    keep(tab.page, file)
    for thread in threads:
        thread.join()
    tab.page.wait_for_selector(".job", state="detached")


def show_gallery(tab: Studio, file: Path) -> None:
    """A finished image, from which the next one starts."""
    tab.page.click("#stage button:has-text('Use as input')")
    tab.page.wait_for_selector("#mask")
    tab.say("a yellow moon on a pink background")
    tab.page.mouse.move(700, 620)
    tab.page.wait_for_timeout(500)
    keep(tab.page, file)


def main() -> None:
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    with tempfile.TemporaryDirectory() as folder, live(Path(folder), backend="mlx") as gateway, chromium() as browser:
        draw(gateway)
        with studio(browser, gateway, color_scheme="light") as tab:
            show_gallery(tab, out / "studio-light.webp")
        with studio(browser, gateway, color_scheme="dark") as tab:
            watch(tab, gateway, out / "studio-dark.webp")


if __name__ == "__main__":
    main()
