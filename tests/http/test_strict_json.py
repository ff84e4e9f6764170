"""What a body may be: the table of S-12, and what must pass."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import MalformedBody
from gateway.strict_json import MAX_NODES, parse, parse_async

REFUSED = {
    "200 000 brackets": b"[" * 200_000,
    "brackets that close again": b"[" * 200_000 + b"]" * 200_000,
    "nested objects": b'{"a":' * 33 + b"1" + b"}" * 33,
    "closed before opened": b"]" * 200_000,
    "too many values": b"[" + b"1," * MAX_NODES + b"1]",
    "too many empty lists": b"[" + b"[]," * MAX_NODES + b"[]]",
    "endless empty strings": b'""' * 100_000,
    "an integer of 5 000 digits": b"9" * 5000,
    "2^64 + 1": b"18446744073709551617",
    "NaN": b"[NaN]",
    "Infinity": b"[Infinity]",
    "minus Infinity": b"[-Infinity]",
    "1e999": b"[1e999]",
    "a fraction of 500 digits": b"0." + b"1" * 500,
    "not UTF-8": b"\xff\xfe",
    "not UTF-8 in a string": b'"\xff"',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a raw surrogate": b'"\xed\xa0\x80"',
    "a lone surrogate": b'"\\ud800"',
    "a lone surrogate in a key": b'{"\\udc00": 1}',
    "NUL": b'"a\\u0000b"',
    "NUL in a key": b'{"\\u0000": 1}',
    "raw NUL": b'"\x00"',
    "a key twice": b'{"a": 1, "a": 2}',
    "a key twice, one escaped": b'{"a": 1, "\\u0061": 2}',
    "nothing": b"",
    "a form": b"a=1&b=2",
    "cut off": b'{"a": "b',
    "cut off in an escape": b'"\\',
    "two values": b"{} {}",
    "a comment": b"{/* */}",
    "a trailing comma": b"[1,]",
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED.keys())
def test_json_hostile_bodies_raise_only_malformed_body(body: bytes) -> None:
    """S-12, S-13: a short sentence, quickly, never another exception."""
    began = time.process_time()
    with pytest.raises(MalformedBody) as refused:
        parse(body)
    assert len(refused.value.message) < 200
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'""', ""),
        (b"\xef\xbb\xbf{}", {}),
        (b'{"a": [1, -2.5e3, true, null, "\\u00e9\\ud83d\\ude00"]}', {"a": [1, -2500.0, True, None, "é😀"]}),
        (b"[" * 32 + b"]" * 32, None),
        (b"-9223372036854775808", -(2**63)),
        (b"18446744073709551615", 2**64 - 1),
        (b"-18446744073709551616", -(2**64)),
        (b'"[[[[{{{{ \\" \\\\"', '[[[[{{{{ " \\'),
        (b'"' + b"[" * 1000 + b'"', "[" * 1000),
    ],
)
def test_json_bodies_within_the_limits_are_parsed_unchanged(body: bytes, value: Any) -> None:
    """S-12: the bounds hit nobody who means well; brackets inside strings are text."""
    assert parse(body) == (value if value is not None else json.loads(body))


def test_a_picture_of_20_mib_is_read_quickly_even_with_escaped_slashes() -> None:
    """S-12: PHP's json_encode writes every slash of base64 as an escape."""
    text = base64.b64encode(bytes(range(256)) * (15 * 4096)).decode()
    body = json.dumps({"image": text}).replace("/", "\\/").encode()
    assert len(body) > 20 * 2**20
    began = time.process_time()
    assert parse(body) == {"image": text}
    assert time.process_time() - began < 2.0


async def test_event_loop_is_not_blocked_while_a_long_json_body_is_parsed() -> None:
    """S-12: no block over 100 ms, of the processor: that other programs are busy is nobody's block."""

    async def read() -> float:
        body = b'{"a":"' + b"A" * (16 * 2**20) + b'"}'
        worst, done = 0.0, False

        async def watch() -> None:
            nonlocal worst
            while not done:
                began = time.process_time()
                await asyncio.sleep(0.002)
                worst = max(worst, time.process_time() - began)

        watcher = asyncio.create_task(watch())
        await asyncio.sleep(0.01)
        await parse_async(body)
        done = True
        await watcher
        return worst

    assert min([await read() for _ in range(3)]) < 0.1


def test_json_escapes_split_between_chunks_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    """S-12: the scan looks at pieces; no cut may turn a string inside out."""
    value = {'a"[': '\\"]', "b\\": ["{", '}\\\\"', ""]}
    body = json.dumps(value).encode()
    for size in range(1, len(body) + 1):
        monkeypatch.setattr("gateway.strict_json._PIECE_BYTES", size)
        assert parse(body) == value


@given(st.binary(max_size=200))
@settings(max_examples=500, deadline=None)
def test_json_parser_returns_a_value_or_malformed_body_for_any_bytes(body: bytes) -> None:
    """S-12."""
    with contextlib.suppress(MalformedBody):
        parse(body)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('abc"\\[', max_size=3), inner, max_size=4),
        max_leaves=20,
    ),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_json_parser_reads_back_what_json_dumps_writes(value: Any, ascii_only: bool) -> None:
    """S-12."""
    assert parse(json.dumps(value, ensure_ascii=ascii_only).encode()) == value
