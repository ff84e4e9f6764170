"""The protocol of AUTOMATIC1111 (A1111) under /sdapi/v1: lenient in what it accepts, exact in what it answers.

docs/sdapi.md is the contract. Knows jobs and the core; knows no other protocol.
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
