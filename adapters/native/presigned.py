"""Presigned addresses: programs fetch a whole image from the storage itself, where the settings allow it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse

from adapters.shared.context import core_of
from gateway.errors import ImageDamaged, ImageGone
from gateway.images.output import OutputFolder
from gateway.jobs.facts import ImageDone

VALID_S = 60.0
"""Seconds for which an address is valid: a client follows at once."""
STAYS = ("range", "sec-fetch-site", "sec-fetch-mode", "x-api-key")
"""Headers of requests that are not redirected: for a part; of browsers, whose pages may load from the gateway only; and
with a key that clients send on to whoever they are redirected to.
"""


async def redirect_to(request: Request, done: ImageDone, headers: dict[str, str]) -> RedirectResponse | None:
    """A redirect to a finished image as it is stored; None where the gateway sends it itself. The caller has checked
    the right to it.

    Raises: ImageGone, ImageDamaged, StorageFault.
    """
    core = core_of(request)
    if not core.settings.files.presigned or request.method != "GET":
        return None
    if any(name in request.headers for name in STAYS) or request.headers.get("user-agent", "").startswith("Mozilla/"):
        return None
    url = await core.output.run(_url_of, core.output, done)
    if url is None:
        return None
    return RedirectResponse(url, status_code=307, headers={**headers, "Cache-Control": "private, no-store"})


def _url_of(output: OutputFolder, done: ImageDone) -> str | None:
    """The address of an image that is there and whole; None where its place has none. Blocks. Raises: as above."""
    if (url := output.url(done.file, VALID_S)) is None:
        return None
    existing, damaged = output.check([done])
    if not existing:
        raise ImageGone
    if damaged:
        raise ImageDamaged
    return url
