"""Sixty rendered pages with their texts, for `benchmarks.ocr_quality`; always the same ones.

Fonts are Debian's: apt install fonts-dejavu-core fonts-liberation fonts-noto-core fonts-noto-cjk
"""

from __future__ import annotations

import io
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

FOLDER = Path("/usr/share/fonts")
SANS, SERIF, MONO, BOLD = (
    FOLDER / "truetype" / name
    for name in (
        "dejavu/DejaVuSans.ttf",
        "liberation/LiberationSerif-Regular.ttf",
        "liberation/LiberationMono-Regular.ttf",
        "liberation/LiberationSans-Bold.ttf",
    )
)
FACES = (SANS, SERIF, FOLDER / "truetype/liberation/LiberationSans-Regular.ttf", SERIF)
NOTO = FOLDER / "truetype/noto"
FOREIGN = {
    "Cyrillic": (SANS, "Все люди рождаются свободными", "и равными в своем достоинстве"),
    "Greek": (SANS, "Όλοι οι άνθρωποι γεννιούνται", "ελεύθεροι και ίσοι στην αξιοπρέπεια"),
    "Arabic": (NOTO / "NotoSansArabic-Regular.ttf", "يولد جميع الناس أحرارا", "متساوين في الكرامة والحقوق"),
    "Hebrew": (NOTO / "NotoSansHebrew-Regular.ttf", "כל בני האדם נולדו בני חורין", "ושווים בערכם ובזכויותיהם"),
    "Devanagari": (NOTO / "NotoSansDevanagari-Regular.ttf", "सभी मनुष्यों को गौरव और", "अधिकारों के मामले में"),
    "Thai": (NOTO / "NotoSansThai-Regular.ttf", "มนุษย์ทั้งหลายเกิดมามีอิสระ", "และเสมอภาคกันในเกียรติศักดิ์"),
    "Hangul": (
        FOLDER / "opentype/noto/NotoSansCJK-Regular.ttc",
        "모든 인간은 태어날 때부터",
        "자유로우며 그 존엄과 권리에",
    ),
    "Georgian": (NOTO / "NotoSansGeorgian-Regular.ttf", "ყველა ადამიანი იბადება", "თავისუფალი და თანასწორი"),
}
WORDS = tuple(
    re.findall(
        r"\w+",
        """
        a about after again along answer autumn before begin below bread bridge bright butter carry castle change
        children clear cloud coffee colour common country cross dark daughter deep different distance door early
        evening every family father field fire flower follow forest friend garden gather glass gold grass green
        ground harbour heavy history house hundred island journey keep kitchen ladder language large letter light
        listen little market meadow measure memory mother mountain music narrow never night ocean old open orange
        orchard other paper people picture place plain pocket quiet rain reason remember ripe river road round
        sailor school season second shadow silver simple sister small song spring stone street strong summer
        table teacher thing through together train travel tree under valley village voice walk water weather
        white wind window winter wonder yellow young
        """,
    )
)


@dataclass(frozen=True, slots=True)
class Page:
    """Image, and its text in reading order. `foreign` lines are in scripts that the reader does not know."""

    kind: str
    number: int
    png: bytes
    text: str
    foreign: int = 0

    @property
    def name(self) -> str:
        return f"{self.kind} {self.number}"


Made = tuple[Image.Image, list[str]] | tuple[Image.Image, list[str], int]


def pages() -> Iterator[Page]:
    """Four pages of each kind. Raises: SystemExit where a font is missing."""
    fonts = {SANS, SERIF, MONO, BOLD, *FACES, *(row[0] for row in FOREIGN.values())}
    if missing := [str(font) for font in fonts if not font.is_file()]:
        raise SystemExit(f"{__doc__}\nmissing: {', '.join(missing)}")
    for kind, make in KINDS.items():
        for number in range(4):
            picture, lines, *foreign = make(random.Random(f"{kind} {number}"), number)
            out = io.BytesIO()
            picture.save(out, "PNG", compress_level=1)
            yield Page(kind, number, out.getvalue(), "\n".join(lines), foreign[0] if foreign else 0)


# ---- parts -----------------------------------------------------------------------------------------


def _font(file: Path, px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(file), px)


def _lines(rng: random.Random, font: ImageFont.FreeTypeFont, width: int, count: int) -> list[str]:
    """Running text, wrapped at `width`; the last line is shorter."""
    found: list[str] = []
    line = ""
    while len(found) < count:
        word = rng.choice(WORDS)
        word = word.capitalize() if not line and not found else word
        if font.getlength(f"{line} {word}") > width:
            found.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    found[-1] = " ".join(found[-1].split()[:-1]) + "."
    return found


def _block(
    draw: ImageDraw.ImageDraw, lines: list[str], x: int, y: int, font: ImageFont.FreeTypeFont, fill: str = "black"
) -> int:
    """Draw lines below each other; returns the place of the next one."""
    for line in lines:
        draw.text((x, y), line, font=font, fill=fill)
        y += round(font.size * 1.4)
    return y


def _sheet(size: tuple[int, int], ground: str = "white") -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", size, ground)
    return image, ImageDraw.Draw(image)


def _price(rng: random.Random) -> str:
    return f"{rng.randint(1, 99)}.{rng.randint(0, 99):02}"


# ---- kinds -----------------------------------------------------------------------------------------


def plain(rng: random.Random, number: int) -> Made:
    font = _font(FACES[number], 22 + 2 * number)
    lines = _lines(rng, font, 700, 10)
    image, draw = _sheet((800, 520))
    _block(draw, lines, 40, 40, font)
    return image, lines


def columns(rng: random.Random, number: int, count: int = 2) -> Made:
    """Columns under a heading; every second page has another heading in the middle."""
    font, large = _font(FACES[number], 20), _font(BOLD, 40)
    width = 360 if count == 2 else 300
    image, draw = _sheet((40 + (width + 40) * count, 760))
    text, y = [], 30
    for _ in range(1 + number % 2):
        title = " ".join(_lines(rng, large, width * count - 40, 1))
        text.append(title)
        draw.text((40, y), title, font=large, fill="black")
        y += 70
        below = y
        for column in range(count):
            lines = _lines(rng, font, width, (16, 7)[number % 2] - column % 2)
            text += lines
            below = max(below, _block(draw, lines, 40 + column * (width + 40), y, font))
        y = below + 24
    return image, text


def receipt(rng: random.Random, number: int) -> Made:
    font = _font(MONO if number % 2 else SANS, 24)
    image, draw = _sheet((560, 640))
    shop = f"{rng.choice(WORDS).capitalize()} & {rng.choice(WORDS).capitalize()}"
    draw.text((160, 20), shop, font=_font(BOLD, 30), fill="black")
    text, y = [shop], 90
    for _ in range(11):
        name = " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 2))).capitalize()
        price = _price(rng)
        if number >= 2:
            name += " " + "." * max(3, int((380 - font.getlength(name)) / font.getlength(".")))
        draw.text((30, y), name, font=font, fill="black")
        draw.text((530 - font.getlength(price), y), price, font=font, fill="black")
        text += [name, price]
        y += 44
    return image, text


def table(rng: random.Random, number: int) -> Made:
    font = _font(FACES[number], 22)
    image, draw = _sheet((860, 480))
    lefts = (30, 330, 520, 700)
    rows = [["Name", "Place", "Number", "Price"]]
    for _ in range(8):
        name = f"{rng.choice(WORDS).capitalize()} {rng.choice(WORDS)}"
        rows.append([name, rng.choice(WORDS).capitalize(), str(rng.randint(10, 9999)), _price(rng)])
    for n, row in enumerate(rows):
        for x, cell in zip(lefts, row, strict=True):
            draw.text((x, 20 + n * 48), cell, font=font, fill="black")
        if number % 2:
            draw.line((20, 60 + n * 48, 840, 60 + n * 48), fill="gray", width=1)
    return image, [cell for row in rows for cell in row]


def chat(rng: random.Random, number: int) -> Made:
    """Tall screenshot of a chat; bubbles are left and right in turn."""
    font = _font(SANS, 24)
    image, draw = _sheet((720, (3000, 4500, 6000, 8000)[number]), "#e8ecef")
    text, y, is_mine = [], 30, False
    while y < image.height - 300:
        lines = _lines(rng, font, 420, rng.randint(1, 3))
        x = 250 if is_mine else 30
        bottom = y + round(len(lines) * 24 * 1.4) + 20
        draw.rounded_rectangle((x - 15, y - 10, x + 450, bottom), 16, "#d6f5c6" if is_mine else "white")
        _block(draw, lines, x, y, font)
        text += lines
        y, is_mine = bottom + rng.randint(90, 300), not is_mine
    return image, text


def banner(rng: random.Random, number: int) -> Made:
    """One or two long lines."""
    font = _font(FACES[number], 34)
    count = 1 + number // 2
    image, draw = _sheet((8000, 40 + 48 * count))
    lines = _lines(rng, font, 7800, count)
    _block(draw, lines, 60, 20, font)
    return image, lines


def turned(how: Image.Transpose) -> Callable[[random.Random, int], Made]:
    def make(rng: random.Random, number: int) -> Made:
        image, text = (plain, columns, receipt, plain)[number](rng, number)[:2]
        return image.transpose(how), text

    return make


def transparent(rng: random.Random, number: int) -> Made:
    colour = ("white", "black", "#ffe680", "#f2f2f2")[number]
    font = _font(FACES[number], 28)
    image = Image.new("RGBA", (760, 320), (255, 255, 255, 0) if number % 2 else (0, 0, 0, 0))
    lines = _lines(rng, font, 660, 6)
    _block(ImageDraw.Draw(image), lines, 40, 30, font, colour)
    return image, lines


def small(rng: random.Random, number: int) -> Made:
    """Letters of 8 to 14 pixels, on a screen or at the foot of a page."""
    px = (8, 9, 12, 14)[number]
    font, large = _font(SANS, px), _font(SERIF, 34)
    size = (700, 300) if number < 2 else (1654, 2339)
    image, draw = _sheet(size)
    text, y = [], 20
    if number >= 2:
        text = _lines(rng, large, 1400, 6)
        y = _block(draw, text, 120, 200, large)
        y = 2100
    lines = _lines(rng, font, 600, 8)
    _block(draw, lines, 40 if number < 2 else 120, y, font)
    return image, [*text, *lines]


def coloured(rng: random.Random, number: int) -> Made:
    ground, colour = (("#20304f", "#ffd75e"), ("#7a1f2b", "white"), ("#f3c9a5", "#5b3a1e"), ("#111111", "#8fd18f"))[
        number
    ]
    font = _font(FACES[number], 26)
    image, draw = _sheet((760, 360), ground)
    lines = _lines(rng, font, 660, 8)
    _block(draw, lines, 40, 30, font, colour)
    return image, lines


def photo(rng: random.Random, number: int) -> Made:
    """Photo of a page: rotated, blurred, noisy, darker at one side."""
    image, text = plain(rng, number)[:2]
    image = image.rotate((-3, 2, -1.5, 4)[number], Image.Resampling.BICUBIC, expand=True, fillcolor="white")
    image = image.filter(ImageFilter.GaussianBlur(0.8))
    shade = Image.linear_gradient("L").resize(image.size).point([150 + value * 105 // 255 for value in range(256)])
    image = ImageChops.multiply(image, Image.merge("RGB", [shade] * 3))
    grain = Image.frombytes("RGB", image.size, rng.randbytes(3 * image.width * image.height))
    return Image.blend(image, grain, 0.12), text


def unknown(rng: random.Random, number: int) -> Made:
    """Two foreign scripts; every second page has English lines between."""
    image, draw = _sheet((760, 400))
    text, y, foreign = [], 30, 0
    for name in list(FOREIGN)[2 * number : 2 * number + 2]:
        file, *lines = FOREIGN[name]
        y = _block(draw, lines, 40, y, _font(file, 30)) + 10
        foreign += len(lines)
        if number % 2:
            font = _font(FACES[number], 26)
            text += (lines := _lines(rng, font, 600, 2))
            y = _block(draw, lines, 40, y, font) + 10
    return image, text, foreign


KINDS: dict[str, Callable[[random.Random, int], Made]] = {
    "plain": plain,
    "two columns": columns,
    "three columns": lambda rng, number: columns(rng, number, 3),
    "receipt": receipt,
    "table": table,
    "tall chat": chat,
    "wide banner": banner,
    "turned by 90": turned(Image.Transpose.ROTATE_90),
    "turned by 180": turned(Image.Transpose.ROTATE_180),
    "turned by 270": turned(Image.Transpose.ROTATE_270),
    "transparent": transparent,
    "small print": small,
    "coloured": coloured,
    "as a photo": photo,
    "unknown script": unknown,
}
