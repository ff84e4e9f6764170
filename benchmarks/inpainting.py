"""Inpainting with the embedded model: python -m benchmarks.inpainting

Each case is an image of coloured shapes and a mask, with room for one more shape or over one that is to be replaced,
sent to POST /sdapi/v1/img2img. A result is right if the prompt's object is inside the mask, by outline and colour, and
every pixel outside the blurred mask is unchanged.
"""

from __future__ import annotations

import argparse
import base64
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import httpx
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from tests.support.live import Live
from tools.train_embedded.icons import paint
from tools.train_embedded.reading import nearest_kind, objects
from tools.train_embedded.scenes import COLOURS, FIRST_KINDS

SIZE_PX = 256
SEED = 4
CASES = 50
RIGHT_SHARE = 0.8
"""Number of cases that must be right."""

PLAIN = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "black", "white")
"""Colours that no shade of another one resembles."""

SIDES_PX = (96, 112, 128, 144)
CORNER_PX, CORNER_RADIUS_PX = 34, 22
MARGIN_PX = 8
"""Size of the crop around the mask, in sides of the mask: the background is recognised there."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Case:
    """One image, one mask, and how it is to be repainted."""

    number: int
    kind: str
    colour: str
    ground: str
    other: tuple[str, str]
    """Kind and colour of an object in the corner far from the mask."""
    under: tuple[str, str] | None
    """Kind and colour of an object that the mask covers."""
    box: Box
    blur: int
    fill: int
    full_res: bool
    denoise: float

    @property
    def prompt(self) -> str:
        return f"a {self.colour} {self.kind} on a {self.ground} background"

    def image(self) -> Image.Image:
        ground = COLOURS[self.ground]
        image = Image.new("RGB", (SIZE_PX, SIZE_PX), ground)
        draw = ImageDraw.Draw(image)
        left, top, right, bottom = self.box
        far = tuple(SIZE_PX - CORNER_PX if a + b < SIZE_PX else CORNER_PX for a, b in ((left, right), (top, bottom)))
        paint(draw, self.other[0], (far[0], far[1]), CORNER_RADIUS_PX, COLOURS[self.other[1]], ground)
        if self.under is not None:
            centre = ((left + right) / 2, (top + bottom) / 2)
            paint(draw, self.under[0], centre, (right - left) / 4, COLOURS[self.under[1]], ground)
        return image

    def mask(self) -> Image.Image:
        mask = Image.new("L", (SIZE_PX, SIZE_PX))
        mask.paste(255, self.box)
        return mask

    def body(self) -> dict[str, Any]:
        """Body of POST /sdapi/v1/img2img."""
        drawn_px = SIZE_PX // 2 if self.full_res else SIZE_PX
        return {
            "prompt": self.prompt,
            "seed": self.number,
            "width": drawn_px,
            "height": drawn_px,
            "init_images": [encoded(self.image())],
            "mask": encoded(self.mask()),
            "mask_blur": self.blur,
            "inpainting_fill": self.fill,
            "inpaint_full_res": self.full_res,
            "inpaint_full_res_padding": 16,
            "denoising_strength": self.denoise,
        }

    def shows_it(self, answer: Image.Image) -> bool:
        """Whether the largest object inside the mask has the requested outline and colour."""
        left, top, right, bottom = self.box
        box = (max(0, left - MARGIN_PX), max(0, top - MARGIN_PX), right + MARGIN_PX, bottom + MARGIN_PX)
        found = objects(answer.crop((*box[:2], min(SIZE_PX, box[2]), min(SIZE_PX, box[3]))))
        if not found:
            return False
        return (found[0].colour, nearest_kind(found[0], FIRST_KINDS)) == (self.colour, self.kind)

    def keeps_the_rest(self, answer: Image.Image) -> bool:
        """Whether every pixel equals the input's where the blurred mask is black."""
        outside = self.mask().filter(ImageFilter.GaussianBlur(self.blur)).point(lambda value: 255 * (value == 0))
        changed = ImageChops.difference(answer, self.image())
        return Image.composite(changed, Image.new("RGB", changed.size), outside).getbbox() is None


def cases(count: int = CASES, seed: int = SEED) -> Iterator[Case]:
    """The first `count` cases of a seed."""
    rng = Random(seed)
    for number in range(count):
        ground, colour, *others = rng.sample(PLAIN, 4)
        kind, under = rng.sample(FIRST_KINDS, 2)
        yield Case(
            number=number,
            kind=kind,
            colour=colour,
            ground=ground,
            other=(rng.choice(FIRST_KINDS), others[0]),
            under=(under, others[1]) if number % 3 == 0 else None,
            box=_box(rng),
            blur=(0, 4, 2)[number % 3],
            fill=number % 4,
            full_res=number % 2 == 1,
            denoise=rng.choice((1.0, 1.0, 0.9)),
        )


def _box(rng: Random) -> Box:
    """Square that is nearer to one corner than to the others."""
    side = rng.choice(SIDES_PX)
    near = [rng.randrange(MARGIN_PX, (SIZE_PX - side) // 2 - MARGIN_PX) for _ in range(2)]
    left, top = (at if rng.random() < 0.5 else SIZE_PX - side - at for at in near)
    return left, top, left + side, top + side


def encoded(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def drawn(client: httpx.Client, case: Case) -> Image.Image:
    """The gateway's image for a case; `client` is based at /sdapi/v1/."""
    answer = client.post("img2img", json=case.body())
    answer.raise_for_status()
    return Image.open(io.BytesIO(base64.b64decode(answer.json()["images"][0]))).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=CASES)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--sheet", type=Path, help="where to put all answers in one picture")
    arguments = parser.parse_args()
    right = kept = 0
    sheet = Image.new("RGB", (10 * SIZE_PX // 2, (arguments.count + 9) // 10 * SIZE_PX // 2))
    with tempfile.TemporaryDirectory() as folder:
        gateway = Live(Path(folder), backend="mlx").start()
        try:
            with httpx.Client(base_url=f"{gateway.url}/sdapi/v1/", timeout=600) as client:
                for case in cases(arguments.count, arguments.seed):
                    answer = drawn(client, case)
                    is_right, is_kept = case.shows_it(answer), case.keeps_the_rest(answer)
                    right, kept = right + is_right, kept + is_kept
                    at = (case.number % 10 * SIZE_PX // 2, case.number // 10 * SIZE_PX // 2)
                    sheet.paste(answer.reduce(2), at)
                    if not (is_right and is_kept):
                        print(f"case {case.number}: {case.prompt}, {'kept' if is_kept else 'not kept'}: {case}")
        finally:
            gateway.stop()
    if arguments.sheet:
        sheet.save(arguments.sheet)
    print(f"the right object inside the mask     {right} of {arguments.count}")
    print(f"outside the blurred mask unchanged   {kept} of {arguments.count}")


if __name__ == "__main__":
    main()
