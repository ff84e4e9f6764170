"""Plans that run outside the engine (OCR, downloads), the union of all plans of a job, and the lane of each."""

from __future__ import annotations

from typing import Annotated, Literal, assert_never

from pydantic import Field

from engine.catalog import HubFiles
from engine.protocol import Frozen, Generate, Load, Upscale


class Ocr(Frozen):
    """Plan to read the text of an image, or of pages of a PDF."""

    kind: Literal["ocr"] = "ocr"
    model: str = "rapidocr"
    document: str
    """Blob: a checked PNG, or a PDF as it was sent."""
    pages: tuple[int, ...] = ()
    """Pages of the PDF in the order of the answer, counted from 1; empty where the document is an image."""
    dpi: float = 200.0
    """Resolution at which pages are rendered."""

    @property
    def inputs(self) -> frozenset[str]:
        """All blobs of the plan."""
        return frozenset({self.document})

    @property
    def count(self) -> int:
        """Number of pages to read; an image is one."""
        return len(self.pages) or 1


class Download(Frozen):
    """Plan to download the weights of a model from the hub."""

    kind: Literal["download"] = "download"
    model: str
    sources: tuple[HubFiles, ...]
    """Repositories that the model needs, its own first."""

    @property
    def inputs(self) -> frozenset[str]:
        """All blobs of the plan: none."""
        return frozenset()


Plan = Annotated[Generate | Upscale | Load | Ocr | Download, Field(discriminator="kind")]
EngineJob = Generate | Upscale | Load
"""Plans that a job may run on the engine."""
Lane = Literal["engine", "cpu", "network"]
LANES: tuple[Lane, ...] = ("engine", "cpu", "network")
LaneName = Literal["engine", "ocr", "network"]
NAME_OF_LANE: dict[Lane, LaneName] = {"engine": "engine", "cpu": "ocr", "network": "network"}
"""The name of each lane for operators, as in `worker.lanes`."""


def part_count(plan: EngineJob | Ocr | Download) -> int:
    """The number of images to draw or pages to read; loading or downloading a model counts as one."""
    match plan:
        case Generate(seeds=seeds):
            return len(seeds)
        case Upscale() | Load() | Download():
            return 1
        case Ocr(count=count):
            return count
        case _:
            assert_never(plan)


def lane_of(plan: EngineJob | Ocr | Download) -> Lane:
    """Lane of a plan: one worker per lane."""
    match plan:
        case Generate() | Upscale() | Load():
            return "engine"
        case Ocr():
            return "cpu"
        case Download():
            return "network"
        case _:
            assert_never(plan)
