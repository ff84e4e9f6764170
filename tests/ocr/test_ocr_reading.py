"""What the reader makes of pages of many kinds, drawn with Pillow's own font. One reader, in this process."""

from __future__ import annotations

import time

import pytest
from PIL import Image, ImageDraw, ImageFont

from gateway.ocr.pages import to_images
from gateway.ocr.reader import PageText, Reader
from tests.support.ocr import encoded, foreign, pdf

PROSE = (
    "When the light over the harbour",
    "turned yellow the sailors came",
    "down to the market and bought",
    "bread for the long journey east",
)
MORE = (
    "Nobody knew how many islands",
    "there were behind the mountain",
    "and the old teacher never said",
    "what he had found beyond them",
)


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(1)


def draw(size: tuple[int, int], *texts: tuple[int, int, str], px: int = 24, ground: str = "white") -> Image.Image:
    image = Image.new("RGB", size, ground)
    for x, y, text in texts:
        ImageDraw.Draw(image).text((x, y), text, fill="black", font=ImageFont.load_default(px))
    return image


def lines(seen: PageText) -> list[str]:
    return [line.text for line in seen.lines]


def column(x: int, y: int, texts: tuple[str, ...]) -> list[tuple[int, int, str]]:
    return [(x, y + 36 * n, text) for n, text in enumerate(texts)]


def two_columns() -> Image.Image:
    return draw((860, 190), *column(20, 20, PROSE), *column(450, 20, MORE))


RECEIPT = [("Milk", "1.20"), ("Bread and butter", "4.35"), ("Tea", "12.80"), ("Total", "18.35")]


def receipt() -> Image.Image:
    cells = [(x, 20 + 44 * n, row[i]) for n, row in enumerate(RECEIPT) for i, x in enumerate((20, 380))]
    return draw((480, 210), *cells)


def test_ocr_tall_pictures_are_read_in_full_and_every_line_once(reader: Reader) -> None:
    texts = [f"Row {n} is here" for n in range(0, 100)]
    pitch = 79  # so that borders of tiles cut lines at many heights
    seen = reader.read(draw((720, 8000), *((20, 20 + pitch * n, text) for n, text in enumerate(texts))))
    assert lines(seen) == texts
    assert seen.unread == ()
    assert [round(line.box[0][1] / pitch, 0) for line in seen.lines] == list(range(100))


def test_ocr_line_of_eight_thousand_pixels_stays_one_line(reader: Reader) -> None:
    words = " ".join(f"{n} words" for n in range(50))
    image = draw((8000, 80), (20, 20, words), px=36)
    assert 7000 < ImageFont.load_default(36).getlength(words) < 7960, "it ends within the picture"
    assert lines(reader.read(image)) == [words]


def test_ocr_columns_are_read_column_by_column_and_rows_row_by_row(reader: Reader) -> None:
    assert lines(reader.read(two_columns())) == [*PROSE, *MORE]
    assert lines(reader.read(receipt())) == [cell for row in RECEIPT for cell in row]


@pytest.mark.parametrize("make", [two_columns, receipt])
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_ocr_rotated_pages_come_in_order_and_boxes_lie_in_the_picture(
    reader: Reader, degrees: int, make: object
) -> None:
    assert callable(make)
    upright: Image.Image = make()
    image = upright.rotate(degrees, expand=True)
    seen = reader.read(image)
    assert lines(seen) == lines(reader.read(upright))
    for line in seen.lines:
        xs, ys = zip(*line.box, strict=True)
        inside = image.crop((int(min(xs)), int(min(ys)), int(max(xs)) + 1, int(max(ys)) + 1)).convert("L")
        assert inside.getextrema()[0] < 100, "the box of a line holds its letters"
        wide = max(xs) - min(xs) > max(ys) - min(ys)
        assert wide == (degrees == 180) or len(line.text) < 4


def test_ocr_page_of_a_pdf_is_read_like_a_picture(reader: Reader) -> None:
    document = pdf(two_columns().rotate(180))
    (page,) = to_images(document, (1,), 100.0)
    assert lines(reader.read(page)) == [*PROSE, *MORE]


@pytest.mark.parametrize("colour", ["white", "black", "#ffe060"])
@pytest.mark.parametrize("behind", [0, 255])
def test_ocr_text_on_a_transparent_background_is_read(reader: Reader, colour: str, behind: int) -> None:
    image = Image.new("RGBA", (420, 90), (behind, behind, behind, 0))
    ImageDraw.Draw(image).text((20, 20), "Clear as glass", fill=colour, font=ImageFont.load_default(36))
    (picture,) = to_images(encoded(image), (), 200.0)
    assert lines(reader.read(picture)) == ["Clear as glass"]


def test_ocr_letters_of_seven_pixels_are_read(reader: Reader) -> None:
    image = draw((420, 90), *((10, 10 + 16 * n, text) for n, text in enumerate(PROSE)), px=11)
    small = image.resize((420 * 3 // 4, 90 * 3 // 4), Image.Resampling.LANCZOS)
    assert lines(reader.read(small)) == list(PROSE)


def test_ocr_reports_lines_in_unsupported_scripts_as_unread(reader: Reader) -> None:
    seen = reader.read(foreign("Some English words"))
    assert lines(seen) == ["Some English words"]
    assert {line.reason for line in seen.unread} == {"unsure"}
    assert all(line.box[0][1] > 120 for line in seen.unread)


def test_ocr_page_out_of_time_says_what_was_not_read(reader: Reader) -> None:
    told: list[float] = []
    image = draw((720, 3000), *((20, 20 + 60 * n, f"Row {n} is here") for n in range(48)))
    seen = reader.read(image, budget_s=0.0, progress=told.append)
    assert (seen.lines, {line.reason for line in seen.unread}) in [((), {"time"}), ((), set())]
    seen = reader.read(image, progress=told.append)
    assert len(seen.lines) == 48
    assert told[0] == 0.0
    assert told[-1] > 0.4


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3), (8192, 1), (1, 8192), (2, 2)])
def test_ocr_smallest_pictures_have_no_text(reader: Reader, size: tuple[int, int]) -> None:
    assert reader.read(Image.new("RGB", size, "white")) == PageText(())
    began = time.monotonic()
    noise = Image.effect_noise(size, 90).convert("RGB")
    reader.read(noise)
    assert time.monotonic() - began < 60
