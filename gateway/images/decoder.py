"""Decoder of clients' images: a few child processes (`gateway.images.decoder_child`) and the turns of their users."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from engine.clock import patience
from gateway.errors import InvalidRequest, Unavailable
from gateway.framing import LENGTH
from gateway.images.header import is_short_work
from gateway.images.png_chunks import size_of
from gateway.round_robin import ANYBODY, Bounds, RoundRobin, Share

CHILDREN = 3
DECODE_S = 60.0
"""Seconds beyond the processor time that the child allows an image: for a stopped child or a very busy machine."""
OWN_DECODE_S = 120.0
"""The same for stored images: they were decoded before, so a delay is the machine's."""
START_S = 30.0
RETRY_S = 10

_ENVIRONMENT = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SYSTEMROOT", "LANG")
_ROOT = Path(__file__).parents[2]
_PROBE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)
"""A PNG of one pixel, for checking that a child works."""

Child = asyncio.subprocess.Process


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """A client's image as an upright PNG, RGB or RGBA, without metadata, and the file that is stored of it."""

    png: bytes
    compact: bytes = b""
    """The original file without metadata, if that is smaller than the PNG."""

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height. Raises: ValueError if the bytes are no PNG."""
        if (size := size_of(self.png)) is None:
            raise ValueError("not a PNG")
        return size

    @property
    def stored_bytes(self) -> bytes:
        """The bytes that are stored."""
        return self.compact or self.png

    def unless_same(self, png: bytes) -> CheckedImage:
        """This image if `png` is equal to its PNG, otherwise a new one of `png`."""
        return self if png == self.png else CheckedImage(png)


class _Died(Exception):
    """The child ended before it answered."""


class ImageDecoder:
    """Decoder children: started when first needed, replaced when they fail, shared in turns by owner."""

    def __init__(
        self,
        *,
        deadline_s: float = DECODE_S,
        start_s: float = START_S,
        command: tuple[str, ...] | None = None,
        children: int = CHILDREN,
        bounds: Bounds | None = None,
    ) -> None:
        self._deadline_s = deadline_s
        self._start_s = start_s
        self._command = command or (sys.executable, "-m", "gateway.images.decoder_child")
        self._turns = RoundRobin(children, bounds or Bounds())
        self._own = asyncio.Lock()
        self._idle: list[Child] = []
        self.deaths = 0
        """Children that ended before they answered."""

    @property
    def idle_pids(self) -> tuple[int, ...]:
        """Process ids of the idle children."""
        return tuple(child.pid for child in self._idle)

    async def normalise(self, data: bytes, param: str = "image", share: Share = ANYBODY) -> bytes:
        """The PNG that a child makes of `data`. Raises: like check."""
        return (await self.check(data, param, share)).png

    async def check(self, data: bytes, param: str = "image", share: Share = ANYBODY) -> CheckedImage:
        """The image that a child makes of `data`.

        Only if a second child dies as well, the image is at fault. Raises: InvalidRequest; TooManyFiles if too many
        images of the owner wait; Unavailable if all children are busy for too long or none can be started.
        """
        async with self._turns.slot(share, len(data), is_short=is_short_work(data)):
            return await self._checked(data, param, self._deadline_s)

    async def normalise_own(self, data: bytes) -> bytes:
        """The PNG that a child makes of a stored image, without waiting for clients' turns.

        Raises: InvalidRequest; Unavailable if no child can be started.
        """
        async with self._own:
            return (await self._checked(data, "image", OWN_DECODE_S)).png

    async def _checked(self, data: bytes, param: str, deadline_s: float) -> CheckedImage:
        """Decode in a child, at most twice. Raises: InvalidRequest, Unavailable."""
        try:
            answer = await self._decoded(data, param, await self._free(), deadline_s)
        except _Died:
            try:
                answer = await self._decoded(data, param, await self._new(), deadline_s)
            except _Died:
                raise InvalidRequest("The picture stops what decodes it.", param=param) from None
        if answer[:1] == b"+":
            return CheckedImage(answer[1:])
        if answer[:1] != b"=":
            raise InvalidRequest(answer[1:].decode(), param=param)
        end = 1 + LENGTH.size + LENGTH.unpack_from(answer, 1)[0]
        return CheckedImage(answer[1 + LENGTH.size : end], answer[end:])

    async def close(self) -> None:
        """End the children; a later image starts another one."""
        idle, self._idle = self._idle, []
        for child in idle:
            await _end(child)

    async def _decoded(self, data: bytes, param: str, child: Child, deadline_s: float) -> bytes:
        """The child's answer. Raises: InvalidRequest, _Died."""
        try:
            async with patience(deadline_s):
                answer = await _ask(child, data)
        except TimeoutError:
            await _end(child)
            raise InvalidRequest("The picture takes too long to decode.", param=param) from None
        except (OSError, asyncio.IncompleteReadError):
            await _end(child)
            self.deaths += 1
            raise _Died from None
        except BaseException:
            await _end(child)  # otherwise the next image would get this one's answer
            raise
        self._idle.append(child)
        return answer

    async def _free(self) -> Child:
        """An idle child, or a new one. Raises: Unavailable."""
        while self._idle:
            child = self._idle.pop()
            if child.returncode is None:
                return child
            await _end(child)
        return await self._new()

    async def _new(self) -> Child:
        """A new child that has passed a probe. Raises: Unavailable."""
        refused = Unavailable("Pictures cannot be decoded now.", retry_after_s=RETRY_S)
        try:
            child = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                cwd=_ROOT,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                start_new_session=True,
            )
        except OSError as error:
            raise refused from error
        try:
            async with patience(self._start_s):
                await _ask(child, _PROBE)
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            await _end(child)
            raise refused from error
        except BaseException:
            await _end(child)
            raise
        return child


async def _ask(child: Child, data: bytes) -> bytes:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(LENGTH.pack(len(data)))
    child.stdin.write(data)
    await child.stdin.drain()
    (size,) = LENGTH.unpack(await child.stdout.readexactly(LENGTH.size))
    return await child.stdout.readexactly(size)


async def _end(child: Child) -> None:
    if child.returncode is None:
        child.kill()
    if child.stdin is not None:
        child.stdin.close()
    await asyncio.shield(child.wait())
