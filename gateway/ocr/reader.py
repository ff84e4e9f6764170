"""Reader: an image to its lines of text, by rapidocr; runs in the child. Its models are in its wheel.

Lines are detected (`detector`), the page is turned upright, the lines are sorted (`order`) and recognised
(`recogniser`), and those whose text is not reliable are marked (`trust`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.jobs.facts import TextLine, UnreadLine
from gateway.ocr.boxes import Box
from gateway.ocr.order import in_reading_order
from gateway.ocr.trust import Recognised, verdicts

if TYPE_CHECKING:
    from PIL.Image import Image

    from gateway.ocr.recogniser import Words

MODELS = {
    "Det": "PP-OCRv6_det_small.onnx",
    "Cls": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    "Rec": "PP-OCRv6_rec_small.onnx",
}
SEARCH_SHARE = 0.4
"""Share of a page's time that detecting its lines may take."""
AT_ONCE = 24
"""Lines recognised between two checks of the time."""
JUDGED = 8
"""Number of longest lines that decide how a page is rotated."""
SINGLE = 1.5
"""Height in lengths from which a box is on its side, or a single letter. Source: rapidocr's own crops."""
Pixels = Any


@dataclass(frozen=True, slots=True)
class PageText:
    """Lines of a page in reading order: recognised ones, and detected ones that were not recognised."""

    lines: tuple[TextLine, ...]
    unread: tuple[UnreadLine, ...] = ()


class Clock:
    """Time of a page. `progress` is called with the share of the page that is done, 0 to 1."""

    def __init__(self, budget_s: float | None, progress: Callable[[float], object]) -> None:
        self._began, self._budget_s, self._progress = time.monotonic(), budget_s, progress
        self._done = 0.0

    def searches(self, part: float) -> bool:
        """Whether there is time to detect more lines."""
        return self._goes_on(SEARCH_SHARE * part, SEARCH_SHARE)

    def reads(self, part: float) -> bool:
        """Whether there is time to recognise more lines."""
        return self._goes_on(SEARCH_SHARE + (1 - SEARCH_SHARE) * part, 1.0)

    def _goes_on(self, done: float, share: float) -> bool:
        self._done = max(self._done, done)  # a second, closer search starts again at 0
        self._progress(self._done)
        return self._budget_s is None or time.monotonic() - self._began < share * self._budget_s


class Reader:
    """The models in memory. `threads` is how many of them compute."""

    def __init__(self, threads: int) -> None:
        import cv2
        import rapidocr

        from gateway.ocr.detector import Detector
        from gateway.ocr.recogniser import Recogniser

        cv2.setNumThreads(threads)
        # A model named by its path is never downloaded: this fails if the file is missing.
        models = Path(rapidocr.__file__).parent / "models"
        engine: Any = rapidocr.RapidOCR(
            params={
                "Global.log_level": "critical",
                "EngineConfig.onnxruntime.intra_op_num_threads": threads,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                **{f"{part}.model_path": str(models / name) for part, name in MODELS.items()},
            }
        )
        self._engine = engine
        self._detector = Detector(engine._load_det_model())
        self._recogniser = Recogniser(engine._load_rec_model())
        engine._load_cls_model()

    def lines(self, image: Image) -> tuple[TextLine, ...]:
        """Lines of text in an RGB image, in reading order; empty if there are none."""
        return self.read(image).lines

    def read(
        self, image: Image, budget_s: float | None = None, progress: Callable[[float], object] = lambda part: None
    ) -> PageText:
        """All lines of an RGB image in any rotation; lines for which time ran out are `unread`."""
        import numpy as np

        clock = Clock(budget_s, progress)
        pixels = np.ascontiguousarray(np.asarray(image)[:, :, ::-1])  # OpenCV's order: BGR
        quarters, upright, boxes = self._upright(pixels)
        boxes = in_reading_order(self._detector.boxes(upright, boxes, clock.searches))
        read: list[Words] = []
        while len(read) < len(boxes) and clock.reads(len(read) / len(boxes)):
            read += self._read(upright, boxes[len(read) : len(read) + AT_ONCE])
        places = [_corners(box.turned_back(quarters, image.width, image.height)) for box in boxes]
        recognised = [
            Recognised(words.text, words.score, words.unread, box.score, max(box.along, box.across) / _low(box))
            for box, words in zip(boxes, read, strict=False)
        ]
        lines, unread = [], []
        for place, words, verdict in zip(places, read, verdicts(recognised), strict=False):
            if verdict == "text":
                lines.append(TextLine(box=place, text=words.text, score=round(words.score, 5)))
            elif verdict == "unsure":
                unread.append(UnreadLine(box=place, reason="unsure"))
        unread += [UnreadLine(box=place, reason="time") for place in places[len(read) :]]
        return PageText(tuple(lines), tuple(unread))

    # ---- rotation of the page ----------------------------------------------------------------------

    def _upright(self, pixels: Pixels) -> tuple[int, Pixels, list[Box]]:
        """Quarter turns to the left that make the page upright, the page after them, and its boxes at a glance."""
        import numpy as np

        boxes = self._detector.glance(pixels)
        tall = sum(box.across for box in boxes if box.is_tall)
        wide = sum(box.along for box in boxes if box.is_wide)
        quarters = 0
        if tall > 2 * wide:
            quarters = 1
            pixels = np.ascontiguousarray(np.rot90(pixels))
            boxes = self._detector.glance(pixels)
        if self._is_upside_down(pixels, boxes, is_sure=quarters == 0):
            height, width = pixels.shape[:2]
            quarters += 2
            pixels = np.ascontiguousarray(np.rot90(pixels, 2))
            boxes = [box.turned_back(2, width, height) for box in boxes]
        return quarters, pixels, boxes

    def _is_upside_down(self, pixels: Pixels, boxes: Sequence[Box], *, is_sure: bool) -> bool:
        """Whether the longest lines read better upside down; `is_sure`: unless the classifier finds all upright."""
        longest = sorted((box for box in boxes if box.is_wide), key=lambda box: -box.along)[:JUDGED]
        crops = [_crop(pixels, box) for box in longest]
        if not crops or (is_sure and not any(self._are_upside_down(crops))):
            return False
        crops = [crop[:, : 12 * crop.shape[0]] for crop in crops[: JUDGED // 2]]
        read = self._recogniser.read([*crops, *map(_turned, crops)])
        upright, turned = read[: len(crops)], read[len(crops) :]
        return sum(words.weight for words in turned) > sum(words.weight for words in upright)

    def _are_upside_down(self, crops: Sequence[Pixels]) -> list[bool]:
        """Which of the crops rapidocr's classifier considers upside down."""
        if not crops:
            return []
        labels = self._engine.text_cls(list(crops)).cls_res
        return [label == "180" and score > self._engine.text_cls.cls_thresh for label, score in labels]

    # ---- lines -------------------------------------------------------------------------------------

    def _read(self, pixels: Pixels, boxes: Sequence[Box]) -> list[Words]:
        """The most plausible text of each box: a line may be upside down, or on its side."""
        import numpy as np

        crops = [_crop(pixels, box) for box in boxes]
        ways: list[tuple[int, Pixels]] = []
        level = [n for n, crop in enumerate(crops) if not _is_on_side(crop)]
        turned = self._are_upside_down([crops[n] for n in level])
        for n, is_turned in zip(level, turned, strict=True):
            ways += [(n, crops[n]), *([(n, _turned(crops[n]))] if is_turned else [])]
        for n, crop in enumerate(crops):
            if _is_on_side(crop):
                left = np.ascontiguousarray(np.rot90(crop))
                ways += [(n, left), (n, _turned(left))]
                if crop.shape[0] < 2 * SINGLE * crop.shape[1]:
                    ways.append((n, crop))
        read = self._recogniser.read([crop for _, crop in ways])
        best: list[Words | None] = [None] * len(crops)
        for (n, _), words in zip(ways, read, strict=True):
            now = best[n]
            if now is None or words.weight > now.weight:
                best[n] = words
        return [words for words in best if words is not None]


def _crop(pixels: Pixels, box: Box) -> Pixels:
    """The part of the image in the box, straightened."""
    import cv2
    import numpy as np

    width, height = max(1, round(box.along)), max(1, round(box.across))
    corners = np.asarray(box.corners, np.float32)
    straight = np.asarray([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    how = cv2.getPerspectiveTransform(corners, straight)
    return cv2.warpPerspective(pixels, how, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _is_on_side(crop: Pixels) -> bool:
    return bool(crop.shape[0] >= SINGLE * crop.shape[1])


def _turned(crop: Pixels) -> Pixels:
    import numpy as np

    return np.ascontiguousarray(np.rot90(crop, 2))


def _low(box: Box) -> float:
    return max(1.0, min(box.along, box.across))


def _corners(box: Box) -> tuple[tuple[float, float], ...]:
    return tuple((round(x, 1), round(y, 1)) for x, y in box.corners)
