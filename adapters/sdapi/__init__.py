"""AUTOMATIC1111's API under /sdapi/v1, as its clients know it: lenient in what it takes, exact in what it answers.

The contract is docs/sdapi.md. Knows jobs and the core; knows no other protocol.
"""

from adapters.sdapi.errors import render_error
from adapters.sdapi.process_time import timed
from adapters.sdapi.protocol import CONTROLNET, INTERNAL, PAGE_CONFIG, PREFIX, PROTOCOL
from adapters.sdapi.response_schemas import Problem
from adapters.sdapi.routes import DESCRIBED, IMAGE_PATHS, OPEN_PATHS, ROUTES
from gateway.http.adapter import Adapter

ADAPTER = Adapter(
    name=PROTOCOL,
    prefix=PREFIX,
    routes=ROUTES,
    render_error=render_error,
    image_paths=IMAGE_PATHS,
    open_paths=OPEN_PATHS,
    more_prefixes=(INTERNAL, CONTROLNET, PAGE_CONFIG),
    described=DESCRIBED,
    error=Problem,
    around=timed,
)
