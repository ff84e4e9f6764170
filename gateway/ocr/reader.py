"""rapidocr as a function from a picture to its lines; runs in the child. Its models lie in its wheel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.protocol import TextLine

if TYPE_CHECKING:
    from PIL.Image import Image

DETECTION_PX = 960
"""Longest side the detector sees. Small pictures stay as they are: rapidocr's own default blows them up to 736 px, and
takes 1.3 s instead of 0.1 for 256x64 and tears lines apart."""
MODELS = {
    "Det": "PP-OCRv6_det_small.onnx",
    "Cls": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    "Rec": "PP-OCRv6_rec_small.onnx",
}


class Reader:
    """The models in memory. `threads` is how many compute."""

    def __init__(self, threads: int) -> None:
        import cv2
        import rapidocr

        cv2.setNumThreads(threads)
        # Named by path, a model is never downloaded: where one is missing this fails.
        models = Path(rapidocr.__file__).parent / "models"
        self._engine = rapidocr.RapidOCR(
            params={
                "Global.log_level": "critical",
                "Det.limit_side_len": DETECTION_PX,
                "Det.limit_type": "max",
                "EngineConfig.onnxruntime.intra_op_num_threads": threads,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                **{f"{part}.model_path": str(models / name) for part, name in MODELS.items()},
            }
        )

    def lines(self, picture: Image) -> tuple[TextLine, ...]:
        """What is written in an RGB picture, from top to bottom; nothing where nothing is found."""
        import numpy as np

        found: Any = self._engine(np.asarray(picture)[:, :, ::-1])  # OpenCV's order: BGR
        if getattr(found, "boxes", None) is None or getattr(found, "txts", None) is None:
            return ()
        rows = zip(found.boxes.tolist(), found.txts, found.scores, strict=True)
        return tuple(
            TextLine(box=tuple((round(x, 1), round(y, 1)) for x, y in box), text=text, score=round(float(score), 5))
            for box, text, score in rows
        )
