"""The studio by keyboard, by screen reader, on a phone and with a key; and with the embedded model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.support.chromium import chromium
from tests.support.live import Live, live
from tests.support.studio import Studio, studio

KEY = "a-key-of-the-studio-0123456789"
SETTLED = """Promise.all(document.getAnimations()
  .filter((one) => one.effect.getTiming().iterations === 1)
  .map((one) => one.finished.catch(() => {})))"""
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """With a picture."""
    with live(tmp_path_factory.mktemp("craft"), backend="mlx") as gateway:
        body = {"prompt": "a blue square", "width": 128, "height": 128, "steps": 4}
        httpx.post(f"{gateway.url}/sdapi/v1/txt2img", json=body, timeout=120).raise_for_status()
        yield gateway


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


def violations(tab: Studio, rules: list[str] | None = None) -> list[str]:
    """What axe-core finds in the page as it is, by these rules or by all."""
    tab.page.evaluate(SETTLED)
    options = {"runOnly": {"type": "rule", "values": rules}} if rules else None
    found = Axe().run(tab.page, options=options).response["violations"]
    return [
        f"{rule['id']}: {node['html']} {node.get('failureSummary', '')}" for rule in found for node in rule["nodes"]
    ]


def test_embedded_model_draws_and_the_studio_shows_the_picture(gateway: Live, browser: Any) -> None:
    with studio(browser, gateway) as tab:
        assert tab.page.input_value("#model") == "flux2-tiny"
        tab.draw("a red circle on a blue background", seed=1)
        tab.see("a red circle on a blue background")
        middle = tab.page.evaluate("""async () => {
          const image = document.querySelector('#stage img');
          await image.decode();
          const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight), pen = canvas.getContext('2d');
          pen.drawImage(image, 0, 0);
          return [image.naturalWidth, ...pen.getImageData(2, 2, 1, 1).data];
        }""")
        width, red, _, blue, _ = middle
        assert width == 128
        assert blue > 150 > red


@pytest.mark.parametrize(("scheme", "rules"), [("dark", None), ("light", ["color-contrast"])])
def test_studio_has_no_accessibility_violations_in_axe(
    gateway: Live, browser: Any, scheme: str, rules: list[str] | None
) -> None:
    """The two differ in colours only."""
    httpx.post(f"{gateway.url}/api/v1/queue/pause")
    try:
        with studio(browser, gateway, color_scheme=scheme) as tab:
            page = tab.page
            tab.draw("a job that waits")
            tab.job("a job that waits").wait_for()
            assert violations(tab, rules) == []
            page.click("#open-models")
            page.wait_for_selector("dialog .model")
            assert violations(tab, rules) == []
            page.keyboard.press("Escape")
            tab.job("a job that waits").get_by_role("button", name="Cancel").click()
            tab.job("a job that waits").wait_for(state="detached")
            page.locator(".tile .open").first.click()
            page.wait_for_selector("dialog .quote")
            assert violations(tab, rules) == []
            page.click("dialog button:has-text('Enlarge')")
            page.wait_for_selector("#enlarge-scale")
            assert violations(tab, rules) == []
            page.keyboard.press("Escape")
            page.click("#stage button:has-text('Use as input')")
            page.click("#mask")
            page.wait_for_selector(".paint")
            assert violations(tab, rules) == []
    finally:
        httpx.post(f"{gateway.url}/api/v1/queue/resume")


def test_studio_can_be_used_by_keyboard_alone(gateway: Live, browser: Any) -> None:
    with studio(browser, gateway) as tab:
        press, page = tab.page.keyboard.press, tab.page
        press("Tab")
        assert page.locator(":focus").text_content() == "Skip to the prompt"
        press("Enter")
        page.keyboard.type("a green triangle")
        press("Control+Enter")
        tab.see("a green triangle")
        press("Escape")
        page.locator("#search").focus()
        for _ in range(12):
            press("Tab")
            if page.locator(".tile .open:focus").count():
                break
        press("Enter")
        page.wait_for_selector("dialog .quote:text-is('a green triangle')")
        press("ArrowRight")
        page.wait_for_selector("dialog .quote:not(:text-is('a green triangle'))")
        press("Escape")
        assert page.locator(".tile .open:focus").count() == 1
        page.locator("#aspects [aria-checked=true]").focus()
        press("ArrowRight")
        page.wait_for_selector("#aspects [aria-checked=true]:has-text('4:3')")
        page.locator("#stage button:has-text('Use as input')").focus()
        press("Enter")
        page.locator("#mask").wait_for()
        page.locator("#mask").focus()
        press("Enter")
        page.wait_for_selector(".paint:focus")
        press(" ")
        press("ArrowDown")
        page.locator("dialog .draw").focus()
        press("Enter")
        page.wait_for_selector("#input-slot .mask")


def test_studio_fits_a_phone_without_sideways_scrolling(gateway: Live, browser: Any) -> None:
    with studio(browser, gateway, **PHONE) as tab:
        for view, part in (("make", ".make"), ("watch", ".watch"), ("keep", ".keep")):
            tab.page.tap(f".tabs [data-view={view}]")
            tab.page.wait_for_selector(part)
            assert tab.page.locator("main > :visible").count() == 1
            assert tab.page.evaluate("document.documentElement.scrollWidth") == 390
            assert violations(tab) == []


def test_studio_theme_is_chosen_and_kept(gateway: Live, browser: Any) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with studio(browser, gateway, color_scheme="dark") as tab:
        dark = tab.page.evaluate(ground)
        tab.page.click("#theme")
        light = tab.page.evaluate(ground)
        tab.page.reload(wait_until="commit")
        tab.page.wait_for_selector("#draw")
        assert tab.page.evaluate(ground) == light != dark


def test_studio_with_keys_set_asks_for_the_key_once_and_shows_the_pictures(browser: Any, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"somebody {KEY}\n")
    keys.chmod(0o600)
    gateway = Live(tmp_path, config={"access": {"keys_file": str(keys)}}).start(ready=False)
    context = browser.new_context()
    try:
        tab = Studio(context.new_page(), gateway.url)
        tab.page.goto(gateway.url, wait_until="commit")
        tab.page.fill("#key", "a-wrong-key-0123456789")
        tab.page.click("dialog .draw")
        tab.page.wait_for_selector("dialog:has-text('That key is wrong')")
        tab.page.fill("#key", KEY)
        tab.page.click("dialog .draw")
        tab.page.wait_for_selector("#engine[data-state=up]")
        tab.page.wait_for_selector("#model option", state="attached")
        tab.draw("behind a key")
        tab.see("behind a key")
        other = Studio(context.new_page(), gateway.url).open()  # an open tab tells the key to the next one
        other.see("behind a key")
        for each in (tab, other):
            each.complaints = [text for text in each.complaints if "401" not in text]
            each.check()
        assert tab.page.evaluate("localStorage.getItem('key')") is None
    finally:
        context.close()
        gateway.stop()
