"""POST /v1/images/ocr over a real socket, read by the real child: pictures, PDFs, and what is neither."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image
from xinference_client import RESTfulClient

from tests.support.hang_up import Caller
from tests.support.live import Live, live
from tests.support.ocr import empty_pdf, encoded, encrypted_pdf, foreign, pdf, written

INVOICE = "Invoice 2026-11\nTotal: 1234.50 EUR\nThank you"
CONFIG = {"ocr": {"threads": 1, "max_pages": 20}}
READ_S = 120.0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("ocr"), config=CONFIG) as running:
        yield running


@pytest.fixture
def client(served: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=READ_S) as client:
        yield client


def send(client: httpx.Client, document: bytes, **fields: str) -> httpx.Response:
    """As xinference_client and curl do: one file, everything else text."""
    return client.post("/v1/images/ocr", files={"image": ("image", document)}, data=fields)


def children_of(running: Live) -> list[int]:
    """The OCR processes of a gateway."""
    assert running.process is not None
    family = psutil.Process(running.process.pid).children(recursive=True)
    return [child.pid for child in family if "gateway.ocr.child" in child.cmdline()]


def reading(running: Live) -> list[int]:
    """Those of them that hold the models: the other one only opens PDFs."""
    return [pid for pid in children_of(running) if psutil.Process(pid).memory_info().rss > 150 * 2**20]


def wait_for_job(client: httpx.Client, status: str) -> dict[str, Any]:
    end = time.monotonic() + READ_S
    while time.monotonic() < end:
        newest: dict[str, Any] = client.get("/api/v1/jobs").json()["jobs"][0]
        if newest["status"] == status:
            return newest
        time.sleep(0.05)
    raise AssertionError(f"the newest job never was {status}")


def assert_refused(answer: httpx.Response, status: int, param: str | None) -> str:
    """One sentence in the shape both clients read."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["detail"] == body["error"]["message"]
    assert body["error"]["param"] == param
    assert not any(word in answer.text for word in ("Traceback", "pypdfium", "Error(", str(Path(__file__).parents[2])))
    sentence: str = body["detail"]
    return sentence


# ---- what is read ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_ocr_answer_is_the_text_of_the_picture_as_a_json_string(client: httpx.Client, kind: str) -> None:
    answer = send(client, encoded(written(INVOICE), kind))
    assert (answer.status_code, answer.json()) == (200, INVOICE)
    assert answer.headers["content-type"].startswith("application/json")
    job = client.get(f"/api/v1/jobs/{answer.headers['x-request-id']}").json()
    assert (job["type"], job["status"], job["result"]["text"]) == ("ocr", "completed", INVOICE)


@pytest.mark.parametrize("size", [(128, 32), (256, 64)])
def test_ocr_small_picture_is_read_as_one_line(client: httpx.Client, size: tuple[int, int]) -> None:
    image = written("", size)
    image.paste(written("Hello 7", (200, 60), height_px=size[1] // 2).crop((12, 12, 12 + 110, 12 + 32)), (4, 0))
    assert send(client, encoded(image)).json() == "Hello 7"


def test_ocr_picture_without_text_is_an_empty_string(client: httpx.Client) -> None:
    assert send(client, encoded(written("", (64, 64)))).json() == ""
    assert send(client, encoded(written("", (64, 64))), kwargs='{"return_dict": true}').json() == []


def test_ocr_photo_with_exif_orientation_is_read_upright(client: httpx.Client) -> None:
    image = written(INVOICE).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    image.save(out, "JPEG", exif=exif)
    assert send(client, out.getvalue()).json() == INVOICE


@pytest.mark.parametrize("wanted", [{}, {"kwargs": '{"return_dict": true}'}])
def test_ocr_lines_that_could_not_be_read_are_left_out_and_reported(
    client: httpx.Client, wanted: dict[str, str]
) -> None:
    answer = send(client, encoded(foreign("Known words")), **wanted)
    told = answer.json()
    assert (told if isinstance(told, str) else "\n".join(line["txt"] for line in told)) == "Known words"
    (page,) = client.get(f"/api/v1/jobs/{answer.headers['x-request-id']}").json()["result"]["pages"]
    assert len(page["unread"]) == int(answer.headers["x-unread-lines"]) > 0
    assert {line["reason"] for line in page["unread"]} == {"unsure"}
    assert {len(line["box"]) for line in page["unread"]} == {4}
    assert "x-unread-lines" not in send(client, encoded(written("Word")), **wanted).headers


def test_ocr_boxes_give_the_position_of_each_line(client: httpx.Client) -> None:
    lines = send(client, encoded(written("Alpha\nOmega")), model="rapidocr", kwargs='{"return_dict": true}').json()
    assert [line["txt"] for line in lines] == ["Alpha", "Omega"]
    for line in lines:
        assert len(line["box"]) == 4
        assert 0.5 <= line["score"] <= 1
    assert lines[0]["box"][3][1] <= lines[1]["box"][3][1]


def test_a_pdf_is_read_page_by_page_as_chosen(client: httpx.Client) -> None:
    document = pdf(written("First page"), written("Second page"))
    assert send(client, document).json() == "First page\n\nSecond page"
    assert send(client, document, kwargs='{"pages": [2, 1], "dpi": 100}').json() == "Second page\n\nFirst page"
    assert send(client, document, kwargs='{"pages": 2}').json() == "Second page"
    told = send(client, document, kwargs='{"boxes": true, "pages": [2]}').json()
    assert [(page["page"], page["result"][0]["txt"]) for page in told["pages"]] == [(2, "Second page")]


def test_pdf_page_of_two_hundred_inches_is_rendered_smaller(client: httpx.Client) -> None:
    assert send(client, empty_pdf(1, b"0 0 14400 14400"), kwargs='{"dpi": 600}').json() == ""


@pytest.mark.parametrize("model", ["rapidocr", "flux2-tiny", "gpt-image-1", ""])
def test_ocr_is_answered_under_the_name_of_every_served_model(client: httpx.Client, model: str) -> None:
    assert send(client, encoded(written("Word")), model=model).json() == "Word"


def test_the_example_of_xinferences_documentation_runs(served: Live) -> None:
    model = RESTfulClient(served.url).get_model("rapidocr")
    assert model.ocr(encoded(written(INVOICE), "JPEG")) == INVOICE
    lines = model.ocr(encoded(written("Alpha")), return_dict=True)
    assert [line["txt"] for line in lines] == ["Alpha"]
    with pytest.raises(RuntimeError, match="damaged"):
        model.ocr(b"not a picture")


def test_xinference_client_launches_aborts_and_terminates_the_ocr_model(served: Live) -> None:
    client = RESTfulClient(served.url)
    uid = client.launch_model(model_name="rapidocr", model_type="image")
    assert client.get_model(uid).ocr(encoded(written("Word")), request_id="mine") == "Word"
    assert client.abort_request(uid, "mine") == {"msg": "NO_OP"}
    assert len(reading(served)) == 1
    client.terminate_model(uid)
    assert reading(served) == []
    assert client.get_model(uid).ocr(encoded(written("Again"))) == "Again"


def test_model_list_contains_the_ocr_model(client: httpx.Client) -> None:
    row = client.get("/v1/models/rapidocr").json()
    assert (row["model_type"], row["model_ability"]) == ("image", ["ocr"])
    assert row in client.get("/v1/models").json()["data"]


def test_ocr_concurrent_requests_are_read_one_after_the_other(served: Live) -> None:
    def one(n: int) -> str:
        with httpx.Client(base_url=served.url, timeout=READ_S) as client:
            return str(send(client, encoded(written(f"Number {n}"))).json())

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(one, range(6))) == [f"Number {n}" for n in range(6)]


# ---- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "word"),
    [
        (b"", "empty"),
        (b"not a picture", "damaged"),
        (encoded(written("x"))[:200], "damaged"),
        (encoded(written("x"), "PPM"), "PNG, JPEG or WebP"),
        (b"%PDF-1.7\nnot a PDF", "damaged"),
        (pdf(written("x"))[:300], "damaged"),
        (encrypted_pdf(), "encrypted"),
        (empty_pdf(0), "damaged"),
    ],
    ids=["nothing", "words", "half a PNG", "GIF", "no PDF", "half a PDF", "encrypted", "no pages"],
)
def test_ocr_unreadable_input_is_a_400_that_says_why(client: httpx.Client, document: bytes, word: str) -> None:
    answer = send(client, document)
    assert word in assert_refused(answer, 400, "image")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"kwargs": '{"pages": 3}'}, "pages"),
        ({"kwargs": '{"pages": [0]}'}, "pages"),
        ({"kwargs": '{"pages": []}'}, "pages"),
        ({"kwargs": '{"pages": true}'}, "pages"),
        ({"kwargs": '{"pages": "all"}'}, "pages.0"),
        ({"kwargs": '{"dpi": 0}'}, "dpi"),
        ({"kwargs": '{"dpi": "fine"}'}, "dpi"),
        ({"kwargs": '{"task": "parse"}'}, "task"),
        ({"kwargs": "[]"}, "kwargs"),
        ({"kwargs": "{"}, "kwargs"),
    ],
)
def test_a_wrong_parameter_is_a_400_that_names_it(client: httpx.Client, fields: dict[str, str], param: str) -> None:
    assert_refused(send(client, pdf(written("1"), written("2")), **fields), 400, param)


def test_pdf_with_too_many_pages_is_a_400_and_a_selection_is_read(client: httpx.Client) -> None:
    assert "At most 20 pages" in assert_refused(send(client, empty_pdf(21)), 400, "pages")
    assert send(client, empty_pdf(21), kwargs='{"pages": [21], "dpi": 20}').json() == ""


def test_ocr_unknown_model_is_a_404_that_names_the_ocr_model(client: httpx.Client) -> None:
    answer = send(client, encoded(written("x")), model="GOT-OCR2_0")
    assert_refused(answer, 404, "model")
    assert "rapidocr" in answer.json()["error"]["available_models"]


def test_a_request_without_a_picture_is_a_400(client: httpx.Client) -> None:
    answer = client.post("/v1/images/ocr", files={"model": (None, "rapidocr")})
    assert_refused(answer, 400, "image")
    two = [("image", ("a", b"1")), ("image", ("b", b"2"))]
    assert_refused(client.post("/v1/images/ocr", files=two), 400, "image")
    assert client.get("/v1/images/ocr").status_code == 405


# ---- ends ------------------------------------------------------------------------------------------


def long_pdf() -> bytes:
    """Pages that take a second and more each."""
    return pdf(*[written("\n".join(f"Line {n}" for n in range(25)), (1200, 1600), 36)] * 12)


def test_ocr_job_can_be_cancelled_in_the_middle_of_a_page(served: Live, client: httpx.Client) -> None:
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(send, client, long_pdf())
        with httpx.Client(base_url=served.url, timeout=READ_S) as other:
            job = wait_for_job(other, "generating")
            assert other.delete(f"/api/v1/jobs/{job['id']}").json()["status"] == "cancelled"
        assert waiting.result().status_code == 499
    assert send(client, encoded(written("Word"))).json() == "Word"


def test_client_disconnect_ends_its_job(served: Live, client: httpx.Client) -> None:
    with httpx.Client(base_url=served.url, timeout=1.0) as hasty, pytest.raises(httpx.ReadTimeout):
        send(hasty, long_pdf())
    assert wait_for_job(client, "cancelled")["type"] == "ocr"


def test_ocr_client_with_an_idempotency_key_comes_back_for_its_text(served: Live) -> None:
    caller = Caller(served)
    file = {"files": {"image": ("image", pdf(*[written("Word")] * 2))}}
    caller.leave(caller.request("POST /v1/images/ocr", file, **{"Idempotency-Key": "once"}))
    job = caller.job("completed")
    answer = caller.answer(caller.request("POST /v1/images/ocr", file, **{"Idempotency-Key": "once"}))
    assert answer.json() == "Word\n\nWord"
    assert [one["id"] for one in caller.jobs()] == [job["id"]]
    caller.close()


def test_ocr_reader_killed_midway_is_replaced_and_the_text_still_arrives(served: Live, client: httpx.Client) -> None:
    send(client, encoded(written("Word")))
    before = children_of(served)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(send, client, pdf(*[written("Again")] * 8))
        with httpx.Client(base_url=served.url, timeout=READ_S) as other:
            wait_for_job(other, "generating")
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        assert waiting.result().json() == "\n\n".join(["Again"] * 8)


def test_ocr_process_does_not_outlive_the_gateway_when_it_stops_or_is_killed(tmp_path: Path) -> None:
    for how in (signal.SIGTERM, signal.SIGKILL):
        with live(tmp_path, config=CONFIG) as running:
            with httpx.Client(base_url=running.url, timeout=READ_S) as client:
                assert send(client, pdf(written("Word"))).json() == "Word"
            left = [psutil.Process(pid) for pid in children_of(running)]
            assert len(left) == 2
            running.stop(how)
        assert psutil.wait_procs(left, timeout=20)[1] == []


def test_ocr_makes_no_network_connection() -> None:
    """The models lie in the wheel: with every socket forbidden the text comes all the same."""
    program = """
import sys
from PIL import Image, ImageDraw, ImageFont
def forbid(event, args):
    if event.startswith("socket."):
        raise RuntimeError(event)
sys.addaudithook(forbid)
from gateway.ocr.reader import Reader
image = Image.new("RGB", (300, 80), "white")
ImageDraw.Draw(image).text((20, 20), "Offline", fill="black", font=ImageFont.load_default(36))
print([line.text for line in Reader(1).lines(image)])
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout.strip()) == (0, "['Offline']"), done.stderr
