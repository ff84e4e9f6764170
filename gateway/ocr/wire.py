"""What travels between the gateway and the OCR child: frames of bytes, and what they say.

A request is a frame of JSON and a frame with the document; its answers are frames of JSON. End of input: leave.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from engine.protocol import Frozen, ModelLoaded, ModelLoading
from gateway.jobs.facts import PageRead, Reading

MAX_ANSWER_BYTES = 16 * 1024 * 1024


class CountPages(Frozen):
    """Request: how many pages has this PDF? Answered by Opening, then Counted or Refused."""

    kind: Literal["count_pages"] = "count_pages"


class Read(Frozen):
    """Request: read the pages from index `first` on. Answered by Reading, Rendered, PageRead for each, or Refused.

    Between the last two, Reading tells how far the page is.
    """

    kind: Literal["read"] = "read"
    pages: tuple[int, ...]
    """Of a PDF, counted from 1; empty where the document is a picture."""
    dpi: float
    first: int
    page_s: float | None = None
    """What is not read of a page after so many seconds is told as unread; None: all is read."""


class Opening(Frozen):
    """Answer to CountPages: the child is up, and what takes time from now on is the document."""

    kind: Literal["opening"] = "opening"


class Rendered(Frozen):
    """Answer to Read: the page is a picture now, and what takes time from now on is reading it."""

    kind: Literal["rendered"] = "rendered"


class Counted(Frozen):
    """Answer to CountPages."""

    kind: Literal["counted"] = "counted"
    pages: int


class Refused(Frozen):
    """Answer: the document cannot be read; `message` is a sentence for the client."""

    kind: Literal["refused"] = "refused"
    message: str


class NotLoaded(Frozen):
    """Answer to Read: what reads could not be loaded; the log says why."""

    kind: Literal["not_loaded"] = "not_loaded"


Request = CountPages | Read
Answer = Opening | Rendered | Counted | Refused | NotLoaded | ModelLoading | ModelLoaded | Reading | PageRead

request: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="kind")])
answer: TypeAdapter[Answer] = TypeAdapter(Annotated[Answer, Field(discriminator="kind")])
