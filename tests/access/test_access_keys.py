"""Who may call: keys, how they are said and kept, and who guesses. Driven as ASGI."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

import pytest

from gateway.access.keys import MOST_CLIENTS, Guesses, Keys
from gateway.settings import SettingsError
from tests.support.access import OPEN, Headers, a_guard, ask

KEY = "k" * 15 + "1"
OTHER = "k" * 15 + "2"


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(f"# who may\n\nalice {KEY}\n  bob\t{OTHER}\n")
    file.chmod(0o600)
    return file


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_key_is_accepted_in_all_three_ways_and_names_the_owner(keys_file: Path) -> None:
    """S-07."""
    guard = a_guard(keys_file=keys_file)
    for fields in (
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {KEY} "},
        {"authorization": basic("anybody", KEY)},
        {"x_api_key": KEY},
        {"authorization": "Basic ", "x_api_key": KEY},
    ):
        assert ask(guard, x_client_id="mallory", **fields).text == "key:alice 0"
    assert ask(guard, authorization=f"Bearer {OTHER}").text == "key:bob 0"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"authorization": ""},
        {"authorization": "Basic "},
        {"authorization": "Bearer"},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Digest {KEY}"},
        {"authorization": "Basic !!!"},
        {"authorization": basic(KEY, "")},
        {"x_api_key": "ü"},
    ],
)
def test_401_without_a_right_key_says_how_to_send_one(keys_file: Path, fields: Headers) -> None:
    """S-07: and the body is not looked at."""
    answer = ask(a_guard(keys_file=keys_file), method="POST", body=b"x", content_type="text/plain", **fields)
    assert answer.status == 401
    schemes = [value.split()[0] for name, value in answer.fields if name == "www-authenticate"]
    assert schemes == ["Bearer", "Basic"]


def test_401_to_a_page_script_opens_no_browser_password_dialog(keys_file: Path) -> None:
    answer = ask(a_guard(keys_file=keys_file), sec_fetch_mode="cors", sec_fetch_site="same-origin")
    assert [value.split()[0] for name, value in answer.fields if name == "www-authenticate"] == ["Bearer"]


@pytest.mark.parametrize("value", ["", "Basic ", "Bearer sk-anything", basic("a", "b"), "nonsense"])
def test_credentials_are_ignored_when_no_keys_are_configured(value: str) -> None:
    """S-07: AUTOMATIC1111's clients send an empty Basic, OpenAI's any key."""
    assert ask(OPEN, authorization=value).status == 200


def test_key_is_not_required_for_open_paths_and_preflights(keys_file: Path) -> None:
    """S-43."""
    guard = a_guard(keys_file=keys_file)
    assert ask(guard, "/open").text == "peer:127.0.0.1 0"
    assert ask(guard, "/open", authorization=f"Bearer {KEY}").text == "key:alice 0"
    fields = {"origin": "http://localhost", "access_control_request_method": "POST"}
    assert ask(guard, method="OPTIONS", **fields).status == 204


def test_an_owner_without_key_is_the_client_id_or_the_address() -> None:
    """DECISIONS 15."""
    assert ask(OPEN, client="10.0.0.9").text == "peer:10.0.0.9 0"
    assert ask(OPEN, x_client_id="tab-7").text == "client:tab-7 0"
    for bad in ("a b", "x" * 65, "ä", "a/b", ""):
        assert ask(OPEN, x_client_id=bad).text == "peer:127.0.0.1 0"


def test_wrong_keys_are_limited_to_ten_a_minute(keys_file: Path) -> None:
    """S-09: then further wrong ones are 429, for that address only; asking without any key is no guess."""
    guard = a_guard(keys_file=keys_file)
    for _ in range(30):
        assert ask(guard).status == 401
    for _ in range(10):
        assert ask(guard, x_api_key="wrong").status == 401
    for wrong in ("wrong", KEY[:-1], KEY + "x"):
        answer = ask(guard, x_api_key=wrong)
        assert (answer.status, answer.code) == (429, "too_many_guesses")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert ask(guard).status == 401
    assert ask(guard, x_api_key="wrong", client="10.0.0.9").status == 401
    assert ask(guard, "/open", x_api_key=KEY).status == 200


def test_key_that_is_right_passes_despite_earlier_wrong_guesses_of_its_address(keys_file: Path) -> None:
    """S-09: otherwise anybody behind the same address could lock its holder out."""
    guard = a_guard(keys_file=keys_file)
    for _ in range(20):
        ask(guard, x_api_key="wrong")
    for fields in ({"x_api_key": KEY}, {"authorization": f"Bearer {KEY}"}, {"authorization": basic("a", KEY)}):
        assert ask(guard, **fields).text == "key:alice 0"
    assert ask(guard, "/open", x_api_key=KEY).text == "key:alice 0"
    assert ask(guard, x_api_key="wrong").status == 429


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("2001:db8:0:1::1", "2001:db8::1:ffff:ffff:ffff:ffff", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::1", "::2", False),
    ],
)
def test_addresses_of_one_network_of_ipv6_are_one_client(keys_file: Path, one: str, other: str, are_one: bool) -> None:
    """S-09: who has one address of a /64 has them all."""
    guard = a_guard(keys_file=keys_file)
    for _ in range(10):
        ask(guard, x_api_key="wrong", client=one)
    assert ask(guard, x_api_key="wrong", client=other).status == (429 if are_one else 401)


def test_wrong_key_counts_are_kept_when_the_address_table_is_full() -> None:
    """S-09: and stays as large as it is."""
    now = 0.0
    guesses = Guesses(clock=lambda: now)
    for _ in range(10):
        guesses.wrong("192.0.2.1")
    for n in range(20_000):
        guesses.wrong(f"10.0.{n // 256}.{n % 256}")
    assert guesses.wait_s("192.0.2.1") > 0
    assert guesses.wait_s("198.51.100.1") > 0, "those whom the table has no room for are counted together"
    assert len(guesses._times) == MOST_CLIENTS
    now = 61.0
    guesses.wrong("198.51.100.1")
    assert guesses.wait_s("198.51.100.1") == 0
    assert len(guesses._times) == 1


def test_wrong_key_limit_of_an_address_ends_after_a_minute() -> None:
    """S-09."""
    now = 0.0
    guesses = Guesses(clock=lambda: now)
    for _ in range(10):
        guesses.wrong("a")
        now += 1.0
    assert guesses.wait_s("a") == 50
    now = 60.5
    assert guesses.wait_s("a") == 0
    for n in range(10_000):
        guesses.wrong(str(n))
    assert len(guesses._times) == 4096


def test_key_digests_are_all_compared_in_constant_time_whichever_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    """S-07: so the time that a wrong key takes tells nothing of a right one."""
    keys = Keys.of({"a": "x" * 32, "b": "y" * 32, "c": "z" * 32})
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda one, other: compared.append((one, other)) or compare(one, other))
    for key, name in (("x" * 32, "a"), ("z" * 32, "c"), ("x" * 31 + "z", None), ("", None)):
        compared.clear()
        assert keys.name_of(key) == name
        given = hashlib.sha256(key.encode()).digest()
        assert compared == [(digest, given) for digest in keys.digests.values()]


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        (f"alice {KEY}\n", 0o644, "chmod 600"),
        (f"alice {KEY}\n", 0o620, "chmod 600"),
        ("", 0o600, "no key"),
        ("alice\n", 0o600, "line 1"),
        (f"\nal/ice {KEY}\n", 0o600, "line 2"),
        ("alice short\n", 0o600, "16 characters"),
        (f"alice {KEY}\nalice {OTHER}\n", 0o600, "twice"),
        (f"alice {KEY} admin\n", 0o600, "line 1"),
    ],
)
def test_a_keys_file_that_cannot_be_trusted_stops_the_start(tmp_path: Path, text: str, mode: int, why: str) -> None:
    """S-07: one line, without the key in it."""
    file = tmp_path / "keys"
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(SettingsError, match=why) as refused:
        a_guard(keys_file=file)
    assert KEY not in str(refused.value)
    with pytest.raises(SettingsError, match="cannot be read"):
        a_guard(keys_file=tmp_path / "nowhere")


def test_key_is_never_shown_in_a_repr(keys_file: Path) -> None:
    """S-41."""
    shown = repr(Keys.load(keys_file)) + repr(a_guard(keys_file=keys_file))
    assert "alice" in shown
    assert KEY not in shown
