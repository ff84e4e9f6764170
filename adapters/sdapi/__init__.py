"""AUTOMATIC1111's API under /sdapi/v1, as its clients know it: lenient in what it takes, exact in what it answers.

The contract is docs/sdapi.md. Knows jobs and the core; knows no other protocol.
"""

from adapters.base import Adapter
from adapters.sdapi.faults import render_error
from adapters.sdapi.routes import PREFIX, PROTOCOL, ROUTES

ADAPTER = Adapter(
    name=PROTOCOL,
    prefix=PREFIX,
    routes=ROUTES,
    render_error=render_error,
    image_paths=(f"{PREFIX}/img2img", f"{PREFIX}/txt2img"),
)
