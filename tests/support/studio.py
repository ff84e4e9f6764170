"""The studio as tests see it: a page that must end without a complaint of the browser."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from typing import Any

from PIL import Image

from tests.support.live import Live

WATCHED = """
window.canary = 0;
window.violations = [];
document.addEventListener('securitypolicyviolation', (event) => violations.push(event.violatedDirective));
"""


class Studio:
    """One tab. Waiting is by what the page shows: its policy forbids the strings that Playwright evaluates."""

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.url = page, url
        self.complaints: list[str] = []
        self.asked: list[str] = []
        page.set_default_timeout(60_000)
        page.add_init_script(WATCHED)
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def open(self) -> Studio:
        self.go()
        return self.wait()

    def go(self) -> None:
        self.page.goto(self.url, wait_until="commit")

    def wait(self) -> Studio:
        """Until it is connected and knows the models."""
        self.page.wait_for_selector("#engine[data-state=up]")
        self.page.wait_for_selector("#model option", state="attached")
        return self

    def say(self, prompt: str, **fields: str | int) -> None:
        self.page.fill("#prompt", prompt)
        for name, value in fields.items():
            self.page.locator(f"#{name}").fill(str(value))

    def draw(self, prompt: str, **fields: str | int) -> None:
        self.say(prompt, **fields)
        self.page.click("#draw")

    def job(self, prompt: str) -> Any:
        """Its row in the queue."""
        return self.page.locator(".job", has=self.page.locator(".title", has_text=re.compile(f"^{re.escape(prompt)}$")))

    def tile(self, prompt: str) -> Any:
        """Its first picture in the gallery."""
        return self.page.locator(".tile", has=self.page.locator(".caption", has_text=prompt)).first

    def see(self, prompt: str) -> None:
        """Wait for a picture of this prompt, drawn on the page."""
        self.page.wait_for_selector(f'.tile.there:has(.caption:text-is("{prompt}"))')

    def check(self) -> None:
        """No complaint of the browser, no script of a stranger, nothing asked of anybody else."""
        assert self.complaints == []
        assert self.page.evaluate("[window.violations, window.canary]") == [[], 0]
        assert [url for url in self.asked if not url.startswith((self.url, "blob:", "data:"))] == []


@contextlib.contextmanager
def studio(browser: Any, gateway: Live, **options: Any) -> Iterator[Studio]:
    """A tab of a browser that was never here; it is checked in the end."""
    context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
    try:
        tab = Studio(context.new_page(), gateway.url)
        yield tab.open()
        tab.check()
    finally:
        context.close()


def a_picture(colour: str = "red") -> dict[str, Any]:
    """A file to choose."""
    out = io.BytesIO()
    Image.new("RGB", (128, 128), colour).save(out, "PNG")
    return {"name": "a.png", "mimeType": "image/png", "buffer": out.getvalue()}
