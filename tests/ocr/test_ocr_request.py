"""What a client may ask of a document, and what it is taken for."""

from __future__ import annotations

import pytest

from gateway.errors import InvalidRequest, NotInstalled
from gateway.jobs.plans import Ocr
from gateway.ocr import packages
from gateway.ocr.packages import MODEL, check_installed, installed_at
from gateway.ocr.pages import MAX_EDGE_PX, MAX_PIXELS, scale_of
from gateway.ocr.request import OcrRequest, is_pdf, resolve

NAME = "a" * 64


@pytest.mark.parametrize(
    ("said", "count", "pages"),
    [
        ({}, 3, (1, 2, 3)),
        ({"pages": (3, 1, 3)}, 3, (3, 1, 3)),
        ({"pages": (2,)}, 300, (2,)),
        ({"pages": (1,)}, None, ()),
    ],
)
def test_pdf_pages_are_those_requested_in_order_and_all_by_default(
    said: dict[str, object], count: int | None, pages: tuple[int, ...]
) -> None:
    plan = resolve(OcrRequest.model_validate(said), MODEL, NAME, count, 200)
    assert plan == Ocr(document=NAME, pages=pages)


@pytest.mark.parametrize(
    ("said", "count", "param"),
    [
        ({}, 201, "pages"),
        ({}, 0, "image"),
        ({"pages": ()}, 3, "pages"),
        ({"pages": (0,)}, 3, "pages"),
        ({"pages": (4,)}, 3, "pages"),
        ({"pages": (-1,)}, 3, "pages"),
        ({"pages": (1,) * 201}, 3, "pages"),
        ({"dpi": 0}, 3, "dpi"),
        ({"dpi": -72}, 3, "dpi"),
        ({"dpi": float("inf")}, 3, "dpi"),
    ],
)
def test_ocr_invalid_request_option_is_refused_with_its_parameter_name(
    said: dict[str, object], count: int, param: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        resolve(OcrRequest.model_validate(said), MODEL, NAME, count, 200)
    assert refused.value.param == param


def test_pdf_dpi_above_the_maximum_is_rendered_at_the_maximum() -> None:
    assert resolve(OcrRequest(dpi=1200), MODEL, NAME, 1, 200).dpi == 600


def test_a_pdf_is_known_by_its_bytes() -> None:
    assert is_pdf(b"%PDF-1.7\n")
    assert is_pdf(b"\xef\xbb\xbf\r\n%PDF-1.7\n")
    assert not is_pdf(b"\x89PNG\r\n%PDF")


@pytest.mark.parametrize("size", [(595, 842), (14_400, 14_400), (14_400, 10), (1e-3, 1e6), (1, 1)])
@pytest.mark.parametrize("dpi", [1, 200, 600])
def test_pdf_page_is_never_rendered_larger_than_the_picture_limit(size: tuple[float, float], dpi: float) -> None:
    """S-31: a page of 200 inches is legal and would have 1.4e10 pixels."""
    scale = scale_of(*size, dpi)
    assert scale <= dpi / 72
    assert max(size) * scale <= MAX_EDGE_PX
    assert size[0] * scale * size[1] * scale <= MAX_PIXELS


def test_missing_package_error_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed(pdf=True)
    assert installed_at() is not None
    monkeypatch.setattr(packages, "PDF", "no_such_package")
    check_installed(pdf=False)
    with pytest.raises(InvalidRequest, match="no_such_package"):
        check_installed(pdf=True)
    monkeypatch.setattr(packages, "READER", ("rapidocr", "no_such_package"))
    with pytest.raises(NotInstalled, match="uv sync --group ocr") as missing:
        check_installed(pdf=False)
    assert missing.value.status == 501
    assert installed_at() is None
