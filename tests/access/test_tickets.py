"""Tickets: what EventSource shows instead of a key (S-08), and how many streams one client may have (S-14)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.access.tickets import LIVES_S, MOST, PASS_LIVES_S, Opened, SharedTickets, Tickets
from tests.support.live import Live, live
from tests.support.native import SMALL, client_of, read, submit

BOSS, GUEST = "0123456789abcdef", "fedcba9876543210"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_ticket_is_valid_once_for_its_path_and_for_one_minute() -> None:
    clock = Clock()
    tickets = Tickets(clock)
    ticket = tickets.give("me", "/a")
    assert len(ticket) > 40
    assert [tickets.take(ticket, "/a"), tickets.take(ticket, "/a")] == ["me", None]
    ticket = tickets.give("me", "/a")
    assert [tickets.take(ticket, "/b"), tickets.take(ticket, "/a")] == [None, None]
    ticket = tickets.give("me", "/a")
    clock.now += LIVES_S
    assert tickets.take(ticket, "/a") is None


def test_tickets_never_used_do_not_accumulate() -> None:
    clock = Clock()
    tickets = Tickets(clock)
    given = [tickets.give("me", "/a") for _ in range(MOST + 1)]
    assert [tickets.take(given[0], "/a"), tickets.take(given[1], "/a")] == [None, "me"]
    clock.now += LIVES_S
    tickets.give("me", "/a")
    assert len(tickets._grants) == 1


# ---- over HTTP -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("tickets")
    keys = folder / "keys"
    keys.write_text(f"boss {BOSS}\nguest {GUEST}\n")
    keys.chmod(0o600)
    gateway = Live(folder, config={"access": {"keys_file": str(keys)}}).start(ready=False)
    yield gateway
    gateway.stop()


def having(gateway: Live, key: str | None) -> httpx.Client:
    headers = {} if key is None else {"X-API-Key": key}
    return httpx.Client(base_url=f"{gateway.url}/api/v1", timeout=60, headers=headers)


def named(client: httpx.Client, url: str) -> list[str]:
    """Of a stream that ends, as an EventSource opens it: no header of its own."""
    path = url.removeprefix("/api/v1")
    return [event["event"] for event in read(client, path) if "event" in event]


def test_ticket_with_keys_set_opens_only_the_stream_of_one_job_or_of_all(keyed: Live) -> None:
    with having(keyed, BOSS) as boss, having(keyed, None) as browser:
        job_id = submit(boss)["job_id"]
        for path in (f"/jobs/{job_id}/stream", "/events", "/tickets"):
            assert browser.request("POST" if path == "/tickets" else "GET", path).status_code == 401

        def ticket(**said: Any) -> Any:
            return boss.post("/tickets", json=said).json()

        given = ticket(job_id=job_id)
        assert given["url"] == f"/api/v1/jobs/{job_id}/stream?ticket={given['ticket']}"
        assert named(browser, given["url"] + "&images=false")[-1] == "complete"
        again = httpx.get(keyed.url + given["url"])
        assert (again.status_code, again.json()["code"]) == (401, "UNAUTHORIZED")
        assert "ticket" in again.json()["error"]
        snapshot = next(event for event in read(browser, ticket()["url"][7:]) if "event" in event)
        assert snapshot["event"] == "snapshot"
        for path in (f"/jobs/{job_id}", f"/jobs/{job_id}/stream", "/jobs"):
            assert browser.get(path, params={"ticket": ticket()["ticket"]}).status_code == 401
        refused = browser.delete(f"/jobs/{job_id}", params={"ticket": ticket(job_id=job_id)["ticket"]})
        assert refused.status_code == 401
    assert "ticket=" not in keyed.logged()
    assert given["ticket"] not in keyed.logged()


def test_browser_event_stream_resumes_where_the_connection_was_lost(keyed: Live) -> None:
    """As an EventSource does by itself: the same address, its cookies, and the last id it heard."""
    with having(keyed, BOSS) as boss, having(keyed, None) as browser, having(keyed, None) as thief:
        job_id = submit(boss)["job_id"]
        for path, asked in ((f"/jobs/{job_id}/stream", {"job_id": job_id}), ("/events", {})):
            url = boss.post("/tickets", json=asked).json()["url"]
            with browser.stream("GET", keyed.url + url) as first:
                assert first.status_code == 200
                cookie = first.headers["set-cookie"]
            assert {"HttpOnly", "SameSite=Strict", f"Path=/api/v1{path}"} <= set(cookie.split("; "))
            for _ in range(2):
                with browser.stream("GET", keyed.url + url) as again:
                    assert again.status_code == 200
                    assert "set-cookie" not in again.headers
            assert thief.get(keyed.url + url).status_code == 401
            other = boss.post("/tickets", json=asked).json()["url"]
            name = cookie.partition("=")[0]
            stolen = {"Cookie": f"{name}=x; {cookie.partition(';')[0]}"}
            assert thief.get(keyed.url + url, headers={"Cookie": f"{name}=x"}).status_code == 401
            with thief.stream("GET", keyed.url + other, headers=stolen) as opened:
                assert opened.status_code == 200, "a fresh ticket needs no cookie"
            assert thief.get(keyed.url + "/api/v1/jobs", headers=stolen).status_code == 401
        url = boss.post("/tickets", json={"job_id": job_id}).json()["url"]
        last = [event for event in read(browser, url.removeprefix("/api/v1")) if "event" in event][-1]
        assert last["event"] == "complete"
        over = browser.get(keyed.url + url, headers={"Last-Event-ID": last["id"]})
        assert over.status_code == 204, "an EventSource stops asking"
    assert "mflux-gateway-stream" not in keyed.logged()


def test_login_pass_expires_after_a_day_and_passes_do_not_accumulate() -> None:
    clock = Clock()
    tickets = Tickets(clock)

    def used() -> tuple[str, dict[str, str]]:
        ticket = tickets.give("me", "/a")
        opened = tickets.open(ticket, "/a", {})
        assert opened is not None
        assert opened.cookie is not None
        name, _, value = opened.cookie.decode().partition(";")[0].partition("=")
        return ticket, {name: value}

    ticket, cookies = used()
    assert tickets.open(ticket, "/a", cookies) == Opened("me")
    assert tickets.open(ticket, "/b", cookies) is None
    assert tickets.open(ticket, "/a", {}) is None
    another, _ = used()
    assert tickets.open(another, "/a", cookies) is None
    clock.now += PASS_LIVES_S
    assert tickets.open(ticket, "/a", cookies) is None
    for _ in range(MOST + 10):
        used()
    assert len(tickets._passes) <= MOST


def test_ticket_is_issued_only_for_jobs_of_the_same_owner(keyed: Live) -> None:
    with having(keyed, BOSS) as boss, having(keyed, GUEST) as guest:
        job_id = submit(boss)["job_id"]
        refused = guest.post("/tickets", json={"job_id": job_id})
        assert (refused.status_code, refused.json()["code"]) == (404, "JOB_NOT_FOUND")


def test_used_tickets_do_not_count_as_wrong_keys(keyed: Live) -> None:
    """An EventSource that lost its connection comes back with the address it has."""
    with having(keyed, BOSS) as boss, having(keyed, None) as browser:
        assert {browser.get("/events", params={"ticket": "x"}).status_code for _ in range(12)} == {401}
        assert boss.get("/jobs").status_code == 200


def test_ticket_without_keys_carries_the_client_id(tmp_path: Path) -> None:
    with live(tmp_path) as gateway, client_of(gateway.url) as mine, having(gateway, None) as browser:
        job_id = submit(mine)["job_id"]
        assert browser.get(f"/jobs/{job_id}/stream").status_code == 404
        url = mine.post("/tickets", json={"job_id": job_id}).json()["url"]
        assert named(browser, url)[-1] == "complete"
        assert httpx.get(gateway.url + url).status_code == 401


def test_the_seventeenth_stream_of_a_client_is_refused_and_others_are_not(tmp_path: Path) -> None:
    """S-14."""
    with live(tmp_path) as gateway, client_of(gateway.url) as mine, client_of(gateway.url) as other:
        mine.post("/queue/pause")
        job_id = mine.post("/generate", json=SMALL).json()["job_id"]
        paths = ["/events", f"/jobs/{job_id}/stream"] * 8
        opened = [read(mine, path) for path in paths]
        for stream in opened:
            next(stream)
        for path in paths[:2]:
            refused = mine.get(path)
            assert (refused.status_code, refused.json()["code"]) == (429, "TOO_MANY_STREAMS")
            assert int(refused.headers["retry-after"]) > 0
        assert next(read(other, "/events"))["event"] == "snapshot"
        for stream in opened:
            stream.close()  # type: ignore[attr-defined]


# ---- of several gateways ---------------------------------------------------------------------------


def _gateways(clock: Clock, count: int = 2) -> list[SharedTickets]:
    """Gateways that tell each other which tickets were used."""
    gateways: list[SharedTickets] = []
    for _ in range(count):

        def on_use(digest: str, own: int = len(gateways)) -> None:
            for number, gateway in enumerate(gateways):
                if number != own:
                    gateway.note_used(digest)

        gateways.append(SharedTickets(b"secret", clock, on_use))
    return gateways


def test_ticket_of_one_gateway_is_valid_once_at_any_other() -> None:
    clock = Clock()
    one, two = _gateways(clock)
    ticket = one.give("key:me", "/a")
    opened = two.open(ticket, "/a", {})
    assert opened is not None
    assert opened.owner == "key:me"
    assert [gateway.open(ticket, "/a", {}) for gateway in (one, two)] == [None, None]
    late, elsewhere = one.give("key:me", "/a"), one.give("key:me", "/a")
    assert two.open(elsewhere, "/b", {}) is None
    assert one.open(elsewhere, "/a", {}) is None, "used up"
    clock.now += LIVES_S
    assert two.open(late, "/a", {}) is None


def test_pass_of_one_gateway_reopens_the_stream_at_another() -> None:
    clock = Clock()
    one, two = _gateways(clock)
    ticket = one.give("key:me", "/a")
    opened = one.open(ticket, "/a", {})
    assert opened is not None
    assert opened.cookie is not None
    name, _, value = opened.cookie.decode().partition(";")[0].partition("=")
    for path, cookies, owner in (
        ("/a", {name: value}, "key:me"),
        ("/b", {name: value}, None),
        ("/a", {name: "x"}, None),
    ):
        again = two.open(ticket, path, cookies)
        assert (None if again is None else again.owner) == owner
    clock.now += PASS_LIVES_S + 2 * LIVES_S
    assert two.open(ticket, "/a", {name: value}) is None


@pytest.mark.parametrize("change", ["x{}", "{}x", "{}.", "", ".", "é.{}", "{}\udcff", "a.b.c"])
def test_altered_or_respelt_ticket_opens_nothing(change: str) -> None:
    clock = Clock()
    (one,) = _gateways(clock, 1)
    ticket = one.give("key:me", "/a")
    assert one.open(ticket, "/a", {}) is not None
    encoded, _, signature = ticket.partition(".")
    for altered in (
        change.format(ticket),
        f"{encoded}=.{signature}",
        f"{encoded}!.{signature}",
        f"{encoded}\n.{signature}",
    ):
        assert one.open(altered, "/a", {}) is None
    assert SharedTickets(b"another", clock).open(ticket, "/a", {}) is None
    many = SharedTickets(b"secret", clock)
    for _ in range(MOST + 10):
        many.open(one.give("key:me", "/a"), "/a", {})
    assert len(many._used) <= MOST
