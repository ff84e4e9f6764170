"""The workers in the studio: hidden where there is one that works, drained and resumed by keyboard, texts as texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.chromium import chromium
from tests.support.live import Live, live
from tests.support.studio import Studio, studio

HOSTILE = '<img src=x onerror="canary=1">'


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("studio"), fake_script={}) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def tab(browser: Any, gateway: Live) -> Iterator[Studio]:
    with studio(browser, gateway) as tab:
        yield tab


def two_workers(gateway: Live) -> dict[str, Any]:
    """The gateway's own answer, and another worker like it."""
    answer: dict[str, Any] = httpx.get(f"{gateway.url}/api/v1/workers").json()
    (own,) = answer["workers"]
    other = {"name": HOSTILE, "kind": "worker", "device": HOSTILE, "seconds_per_image": 3.21, "running_count": 1}
    return {"workers": [own, {**own, **other}]}


def test_one_worker_is_shown_only_while_it_is_drained_and_is_resumed_by_keyboard(gateway: Live, tab: Studio) -> None:
    tab.open()
    assert tab.page.locator("#workers").is_hidden()
    httpx.post(f"{gateway.url}/api/v1/workers/gateway/drain")
    tab.page.reload()
    tab.wait()
    button = tab.page.get_by_role("button", name="Resume gateway")
    button.focus()
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_selector("#workers", state="hidden")
    assert httpx.get(f"{gateway.url}/api/v1/workers").json()["workers"][0]["draining"] is False
    tab.check()


def test_several_workers_are_listed_and_drained_by_keyboard_without_losing_the_focus(
    gateway: Live, tab: Studio
) -> None:
    answer = two_workers(gateway)
    drained: list[str] = []

    def drain(route: Any) -> None:
        drained.append(route.request.url)
        answer["workers"][1]["draining"] = True
        route.fulfill(json=answer["workers"][1])

    tab.page.route("**/api/v1/workers", lambda route: route.fulfill(json=answer))
    tab.page.route("**/api/v1/workers/*/drain", drain)
    tab.open()
    rows = tab.page.locator("#worker-rows > li")
    rows.nth(1).wait_for()
    assert rows.count() == 2
    assert "At work" in rows.nth(1).inner_text()
    assert f"{HOSTILE} · " in rows.nth(1).inner_text()
    assert "3.2 s a picture" in rows.nth(1).inner_text()
    rows.nth(1).get_by_role("button", name="Drain").focus()
    tab.page.keyboard.press("Space")
    rows.nth(1).get_by_role("button", name="Resume").wait_for()
    assert len(drained) == 1
    assert "%3Cimg%20src" in drained[0]
    assert tab.page.locator(":focus").inner_text() == "Resume"
    tab.check()


def test_a_refused_drain_says_why(gateway: Live, tab: Studio, tmp_path: Path) -> None:
    answer = two_workers(gateway)
    answer["workers"][1]["name"] = "gone"
    tab.page.route("**/api/v1/workers", lambda route: route.fulfill(json=answer))
    tab.open()
    tab.page.get_by_role("button", name="Drain gone").click()
    tab.page.wait_for_selector(".toast.bad")
    assert "No worker of this name" in tab.page.locator(".toast.bad").inner_text()
    tab.complaints.clear()  # the browser reports the 404
    tab.check()
