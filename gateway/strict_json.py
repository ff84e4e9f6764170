"""Strict JSON: untrusted bytes to a value, or a sentence on why not. Knows no protocol and no field.

`json.loads` alone recurses into `[` * 200000, accepts NaN and 1e999, and keeps the last of two equal keys (S-12). So
the shape is measured first, in pieces: C code holds the GIL for a whole call, so no call gets megabytes.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from typing import Any, NoReturn

from gateway.errors import MalformedBody

MAX_DEPTH = 32
MAX_NODES = 10_000
MAX_INT = 2**64
"""Bound of integers. Seeds have 64 bits, signed or unsigned: values just beyond are refused by the field's name."""
MAX_KEY_CHARS = 1024
MAX_ESCAPES = 2**20
"""Backslashes of a body: base64 with every slash escaped has half as many; each costs the decoder 10 ns."""
THREAD_ABOVE_BYTES = 64 * 1024

_MAX_NUMBER_CHARS = 400
_PIECE_BYTES = 64 * 1024
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_OUTSIDE = re.compile(rb'[^"\[\]{},]*+')


def parse(body: bytes) -> Any:
    """The JSON value in `body`.

    Raises: MalformedBody, for anything but one finite value of moderate size and clean text without duplicate keys.
    """
    _measure(body)
    if len(body) > MAX_ESCAPES and body.count(b"\\") > MAX_ESCAPES:
        raise MalformedBody(f"The body has more than {MAX_ESCAPES} escapes.")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise MalformedBody("The body is not valid UTF-8.") from None
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise MalformedBody(f"The body is not valid JSON: {error.msg} at {where}.") from None
    except RecursionError:
        raise MalformedBody(f"The body is nested deeper than {MAX_DEPTH} levels.") from None
    if b"\\u" in body:
        _check_texts(value)
    return value


async def parse_async(body: bytes) -> Any:
    """`parse`, in a thread if the body is long.

    Raises: MalformedBody.
    """
    if len(body) <= THREAD_ABOVE_BYTES:
        return parse(body)
    return await asyncio.to_thread(parse, body)


def _measure(body: bytes) -> None:
    """Count depth and nodes without building anything; text that is not JSON is left to the decoder."""
    depth, nodes, strings = 0, 1, 0
    at, in_string = 0, False
    while at < len(body):
        end = min(len(body), at + _PIECE_BYTES)
        match = (_IN_STRING if in_string else _OUTSIDE).match(body, at, end)
        assert match is not None
        at = match.end()
        if at == end:
            continue
        byte = body[at : at + 1]
        at += 1
        if byte == b"\\":  # an escape that the end of the piece cuts in two
            at += 1
        elif byte == b'"':
            in_string = not in_string
            strings += in_string
        elif byte in b"[{":
            depth += 1
            nodes += 1
        elif byte in b"]}":
            depth -= 1
        else:
            nodes += 1
        if depth > MAX_DEPTH:
            raise MalformedBody(f"The body is nested deeper than {MAX_DEPTH} levels.")
        if nodes > MAX_NODES or strings > 2 * MAX_NODES:
            raise MalformedBody(f"The body has more than {MAX_NODES} values.")
        if depth < 0:
            raise MalformedBody("The body is not valid JSON: a bracket is closed that was never opened.")


def _check_texts(root: Any) -> None:
    """Refuse escapes that UTF-8 cannot express: NUL and single surrogates, which stores treat differently."""
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            _check_text(value)
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            waiting.extend(value.keys())
            waiting.extend(value.values())


def _check_text(text: str) -> None:
    if "\0" in text:
        raise MalformedBody("Text must not contain the NUL character.")
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise MalformedBody("Text must not contain half of a surrogate pair.") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise MalformedBody("The body gives the same key twice in one object.")
    if max(map(len, result), default=0) > MAX_KEY_CHARS:
        raise MalformedBody(f"A key in the body is longer than {MAX_KEY_CHARS} characters.")
    return result


def _int(text: str) -> int:
    # int() refuses more than 4 300 digits with a ValueError of its own, and takes quadratic time below that.
    value = int(text) if len(text) <= 21 else MAX_INT + 1
    if not -MAX_INT <= value <= MAX_INT:
        raise MalformedBody("A whole number in the body is outside -2^64 to 2^64.")
    return value


def _float(text: str) -> float:
    value = float(text) if len(text) <= _MAX_NUMBER_CHARS else math.inf
    if not math.isfinite(value):
        raise MalformedBody("A number in the body is too large or too long.")
    return value


def _constant(name: str) -> NoReturn:
    raise MalformedBody(f"{name} is not a number JSON knows.")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_int, parse_float=_float, parse_constant=_constant)
