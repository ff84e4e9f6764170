"""The table of both generations: the first at the root, the second below /api, the same answers from both."""

from __future__ import annotations

from adapters.mflux_server import models, tasks
from adapters.mflux_server.requests import PREFIX
from adapters.mflux_server.schemas import (
    Done,
    Drawing,
    GenerateBody,
    ImageQuery,
    Listed,
    LoadBody,
    Loaded,
    Submitted,
    Task,
    TaskQuery,
    Waiting,
)
from adapters.shared.table import Row, below, described, routes_of
from gateway.http.openapi import Operation

ONCE = ("Idempotency-Key",)
UNKNOWN = {404: "There is no such task, or it was fetched or cancelled."}
IMAGE = Operation(query=ImageQuery, media=("image/png", "image/jpeg", "text/plain"), also=UNKNOWN)

TASKS = (
    Row("POST", "/generate", tasks.generate, Operation(body=GenerateBody, answer=Submitted, headers=ONCE)),
    Row("GET", "/status", tasks.get_status, Operation(query=TaskQuery, answer=Waiting | Done, also=UNKNOWN)),
    Row("GET", "/image", tasks.get_image, IMAGE),
    Row("GET", "/tasks", tasks.list_tasks, Operation(answer=list[Task])),
    Row("GET", "/cancel", tasks.cancel, Operation(query=TaskQuery, also=UNKNOWN)),
    Row("GET", "/clear", tasks.clear),
)
"""What both generations have."""
TABLE = (
    *TASKS,
    *below(
        PREFIX,
        (
            *TASKS,
            Row("GET", "/ls", models.list_models, Operation(answer=dict[str, Listed])),
            Row("GET", "/ps", models.get_model, Operation(answer=Drawing)),
            Row("POST", "/load", models.load, Operation(body=LoadBody, answer=Loaded, headers=ONCE), waits=True),
        ),
    ),
)
CHANGING_PATHS = tuple(row.path for row in TABLE if row.endpoint in (tasks.get_image, tasks.cancel, tasks.clear))
"""Where a GET changes something; it answers no HEAD, of which nobody expects that."""
IMAGE_PATHS = tuple(row.path for row in TABLE if row.operation.body is GenerateBody)
FIRST_PATHS = tuple(row.path for row in TASKS)
"""Of generation 1, at the root."""
ROUTES = tuple(route for row in TABLE for route in routes_of((row,), head=row.path not in CHANGING_PATHS))
DESCRIBED = described(TABLE)
