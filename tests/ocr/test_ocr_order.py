"""What is done with the boxes of lines: tiles, reading order, turns, trust, and the ground of a picture. No model."""

from __future__ import annotations

import itertools
import random

import pytest
from PIL import Image

from gateway.ocr.boxes import Box, rectangle
from gateway.ocr.ground import on_ground
from gateway.ocr.order import in_reading_order
from gateway.ocr.tiles import MOST_TILES, OVERLAP_PX, TILE_PX, merged, tiles_of, with_large
from gateway.ocr.trust import Recognised, verdicts


def line(x: float, y: float, width: float, height: float = 20) -> Box:
    return rectangle(x, y, x + width, y + height)


def ordered(boxes: list[Box]) -> list[int]:
    """The numbers of the boxes in reading order, whatever order they came in."""
    shuffled = random.Random(7).sample(boxes, len(boxes))
    return [boxes.index(box) for box in in_reading_order(shuffled)]


def text(x: float, y: float, width: float, count: int, pitch: float = 30) -> list[Box]:
    """A paragraph; its last line is shorter."""
    return [line(x, y + n * pitch, width if n < count - 1 else width / 2) for n in range(count)]


def in_order(boxes: list[Box]) -> bool:
    return ordered(boxes) == list(range(len(boxes)))


# ---- reading order ---------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("pitch", [30, 33])
def test_ocr_columns_are_read_one_after_the_other(count: int, pitch: float) -> None:
    boxes = [box for n in range(count) for box in text(20 + n * 340, 20 + 3 * n, 300, 12, pitch if n else 30)]
    assert in_order(boxes)


def test_ocr_headings_across_columns_separate_text_above_from_text_below() -> None:
    boxes = [line(40, 20, 600, 40)]
    for top in (100, 520):
        boxes += [*text(20, top, 300, 8), *text(360, top, 300, 7)]
        boxes.append(line(20, top + 300, 640, 30))
    assert in_order(boxes)


def test_ocr_heading_reaching_into_the_gutter_keeps_two_columns() -> None:
    boxes = [line(20, 20, 333, 26), *text(20, 60, 300, 9), line(360, 20, 280, 26), *text(360, 60, 300, 9)]
    assert in_order(boxes)


def test_ocr_table_cells_slightly_lower_are_read_in_their_row() -> None:
    boxes = [line(20 + 160 * n, 20 + 60 * row + 7 * n, 70 + 10 * n) for row in range(9) for n in range(2)]
    assert in_order(boxes)


@pytest.mark.parametrize("columns", [2, 3, 4, 5])
def test_ocr_tables_are_read_row_by_row(columns: int) -> None:
    widths = [110, 60, 150, 80, 120]
    boxes = [line(20 + 200 * n, 20 + 40 * row, widths[(n + row) % 5]) for row in range(9) for n in range(columns)]
    assert in_order(boxes)


def test_ocr_receipts_are_read_row_by_row_also_with_long_names() -> None:
    names = [260, 330, 340, 320, 150, 345, 338]
    boxes = [box for n, width in enumerate(names) for box in (line(20, 20 + 40 * n, width), line(420, 22 + 40 * n, 60))]
    assert in_order(boxes)


def test_ocr_receipt_price_is_read_beside_the_first_line_of_a_two_line_name() -> None:
    boxes = []
    for n in range(6):
        boxes += [line(20, 20 + 90 * n, 340), line(420, 20 + 90 * n, 60), line(20, 50 + 90 * n, 300)]
    assert in_order(boxes)


def test_ocr_paper_forms_are_read_row_by_row() -> None:
    boxes = [
        box
        for n in range(8)
        for box in (line(20, 20 + 45 * n, 60 + 10 * (n % 4)), line(200, 20 + 45 * n, 90 + 40 * (n % 5)))
    ]
    assert in_order(boxes)


def test_ocr_chat_bubbles_are_read_from_top_to_bottom() -> None:
    boxes, y = [], 20
    for n in range(12):
        for _ in range(1 + n % 3):
            boxes.append(line(20 if n % 2 else 320, y, 280))
            y += 30
        y += 60
    assert in_order(boxes)


def test_ocr_list_beside_text_of_another_line_pitch_is_a_column() -> None:
    boxes = [*(line(20, 20 + 47 * n, 90) for n in range(8)), *text(200, 20, 600, 13)]
    assert in_order(boxes)


def test_ocr_columns_above_a_table_are_read_before_it() -> None:
    boxes = [*text(20, 20, 300, 9), *text(360, 20, 300, 9)]
    boxes += [line(20 + 160 * n, 420 + 40 * row, 70 + 10 * n) for row in range(4) for n in range(4)]
    assert in_order(boxes)


def test_ocr_skewed_page_is_read_like_a_straight_one() -> None:
    def askew(box: Box) -> Box:
        a, b, c, d = ((x - 0.08 * y, y + 0.08 * x) for x, y in box.corners)
        return Box((a, b, c, d))

    assert in_order([askew(line(20 + 300 * n, 20 + 40 * row, 100)) for row in range(9) for n in range(3)])
    assert in_order([askew(box) for n in range(2) for box in text(20 + 340 * n, 20, 300, 12)])


def test_ocr_order_returns_each_of_random_boxes_once() -> None:
    rng = random.Random(3)
    for number in (0, 1, 2, 40, 400):
        boxes = [
            line(rng.random() * 900, rng.random() * 900, 1 + rng.random() * 300, 1 + rng.random() * 90)
            for _ in range(number)
        ]
        assert sorted(ordered(boxes)) == list(range(number))


# ---- tiles -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(720, 8000), (8000, 80), (960, 960), (961, 10), (4096, 4096), (8192, 2048), (1, 1)])
@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_ocr_tiles_cover_the_picture_overlap_and_are_bounded(size: tuple[int, int], scale: float) -> None:
    tiles = tiles_of(*size, scale)
    assert 1 <= len(tiles) <= MOST_TILES
    for low, high, length in (("left", "right", size[0]), ("top", "bottom", size[1])):
        spans = sorted({(getattr(tile, low), getattr(tile, high)) for tile in tiles})
        assert (spans[0][0], spans[-1][1]) == (0, length)
        assert all((b - a) * scale <= TILE_PX + 1 for a, b in spans)
        assert all(b[0] <= a[1] - OVERLAP_PX / scale + 1 for a, b in itertools.pairwise(spans))


def cut(boxes: list[Box], width: int, height: int) -> list[list[Box]]:
    """What each tile sees of boxes."""
    seen = []
    for tile in tiles_of(width, height, 1.0):
        part = []
        for box in boxes:
            left, right = max(box.left, tile.left), min(box.right, tile.right)
            top, bottom = max(box.top, tile.top), min(box.bottom, tile.bottom)
            if right - left > 3 and bottom - top > 3:
                part.append(rectangle(left, top, right, bottom))
        seen.append(part)
    return seen


@pytest.mark.parametrize("offset", range(0, 41, 5))
def test_ocr_line_of_a_tall_picture_comes_once_wherever_tile_borders_cut(offset: int) -> None:
    boxes = [line(20, y + offset, 500, 24) for y in range(0, 7900, 41)]
    assert sorted(merged(cut(boxes, 720, 8000)), key=lambda box: box.top) == boxes


@pytest.mark.parametrize("offset", range(0, 900, 90))
def test_ocr_words_at_a_tile_border_of_a_wide_picture_come_once(offset: int) -> None:
    boxes = [line(x + offset, 30, 290, 24) for x in range(0, 7000, 350)]
    found = sorted(merged(cut(boxes, 8000, 80)), key=lambda box: box.left)
    assert [box.left for box in found] == [box.left for box in boxes]
    assert all(abs(a.right - b.right) < 6 for a, b in zip(found, boxes, strict=True))


def test_ocr_line_longer_than_a_tile_stays_one_line() -> None:
    boxes = [line(40, 8, 7900, 20), line(40, 44, 7000, 20)]
    assert sorted(merged(cut(boxes, 8000, 80)), key=lambda box: box.top) == boxes


def test_ocr_letters_taller_than_the_tile_overlap_come_from_the_whole_picture() -> None:
    large = line(100, 100, 3000, 400)
    assert with_large([line(100, 100, 900, 400), line(1000, 100, 2100, 400)], [large]) == [large]


def test_ocr_lines_of_a_paragraph_come_from_the_tiles() -> None:
    lines = text(20, 20, 600, 5)
    assert with_large(lines, [rectangle(15, 15, 640, 170)]) == lines
    assert with_large([], lines) == lines


# ---- turns -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_ocr_boxes_of_a_rotated_page_are_in_picture_coordinates(quarters: int) -> None:
    picture = Image.new("L", (90, 60))
    picture.paste(255, (10, 5, 40, 20))
    turned = picture.rotate(90 * quarters, expand=True)
    bounds = turned.getbbox()
    assert bounds is not None
    back = rectangle(*bounds).turned_back(quarters, *picture.size)
    assert (back.left, back.top, back.right, back.bottom) == (10, 5, 40, 20)
    assert back.corners[0] == (10, 5)


# ---- trust -----------------------------------------------------------------------------------------


def seen(text: str, score: float = 0.98, unread: float = 0.0, found: float = 0.8, aspect: float = 12.0) -> Recognised:
    return Recognised(text, score, unread, found, aspect)


@pytest.mark.parametrize(
    "words",
    [
        "Total: 1234.50 EUR",
        "IBAN DE89 3704 x7Kq9-ZZtop_41",
        "Zażółć gęślą jaźń",
        "Δx = 5 µm, λ = 3 kΩ",
        "人人生而自由",
        "A",
    ],
)
def test_ocr_line_read_with_confidence_is_text(words: str) -> None:
    assert verdicts([seen(words)]) == ["text"]


@pytest.mark.parametrize(
    "line",
    [
        seen("", 0.0, 1.0),
        seen("n    qm nı", 0.79, 0.7),
        seen("Tt c mi ngưi sinh ra", 0.99, 0.1),
        seen("λοι οι νθρωτι γεννιονται", 0.85),
        seen("OΛOI OI ANOPΩNOI FENNIOYNTAI", 0.92),
        seen("C4 Ct UXLO t4LI Ct UILl IAlα tALCO", 0.72),
        seen("P0O A UA OAE 185 OhOCS", 0.45),
        seen("JGUAIMA UUN ONÃASGGON GÃ", 0.523, 0.02),
        seen("CUUIOORRCCUODDORRCLUUDD", 0.519, 0.03),
    ],
    ids=[
        "Cyrillic",
        "Armenian",
        "Vietnamese",
        "Greek",
        "Greek capitals",
        "Hebrew",
        "Ethiopic",
        "Khmer",
        "strokes",
    ],
)
def test_ocr_line_that_could_not_be_read_is_unsure(line: Recognised) -> None:
    assert verdicts([line]) == ["unsure"]


def test_ocr_blurred_line_and_single_digit_count_as_text() -> None:
    assert verdicts([seen("Sträße nach Suden", 0.68)]) == ["text"]
    assert verdicts([seen("7", 0.55)]) == ["text"]


def test_ocr_dirt_and_icons_are_not_text() -> None:
    assert (
        verdicts([seen("", 0.0, 1.0, found=0.55), seen("", 0.0, 1.0, aspect=1.1), seen("i", 0.3, aspect=1.0)])
        == ["nothing"] * 3
    )


def test_ocr_doubtful_line_is_judged_like_the_other_lines() -> None:
    doubtful, good = seen("HEPBOE CJOBO", 0.85), seen("The whole page is English")
    assert verdicts([doubtful, good])[0] == "text"
    assert verdicts([doubtful, seen("", 0.0, 1.0, aspect=30)])[0] == "unsure"


# ---- transparency ----------------------------------------------------------------------------------


@pytest.mark.parametrize("colour", ["white", "black", "#ffe680", "#f2f2f2", "#808080", "#203080", "red"])
@pytest.mark.parametrize("hidden", ["white", "black"])
def test_ocr_transparent_picture_gets_a_background_with_contrast(colour: str, hidden: str) -> None:
    picture = Image.new("RGBA", (60, 40), (*Image.new("RGB", (1, 1), hidden).getpixel((0, 0)), 0))  # type: ignore[misc]
    picture.paste(colour, (20, 10, 26, 30))
    grey = on_ground(picture).convert("L")
    low, high = grey.getextrema()
    assert high - low >= 48  # type: ignore[operator]


def test_ocr_transparent_picture_with_dark_plate_gets_a_white_background() -> None:
    picture = Image.new("RGBA", (60, 40), (0, 0, 0, 0))
    picture.paste("#222222", (5, 5, 55, 35))
    picture.paste("white", (20, 10, 26, 30))
    assert on_ground(picture).getpixel((0, 0)) == (255, 255, 255)
