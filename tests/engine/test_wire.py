"""Every message survives the wire, and nothing else gets through."""

import pytest
from pydantic import ValidationError

from engine.protocol import (
    Cancel,
    Cancelled,
    Decoding,
    Denoised,
    Drawn,
    Failed,
    Frozen,
    Generate,
    JobReport,
    Load,
    Memory,
    ModelLoaded,
    ModelLoading,
    Ping,
    Pong,
    Preview,
    Ready,
    Run,
    SecondPass,
    Skip,
    StepDone,
    Succeeded,
    decode_command,
    decode_report,
    encode,
)
from tests.support.engine import KLEIN, TINY

GENERATE = Generate(
    model=TINY.name,
    prompt="a “red” circle\nüber 🐱\u2028 \\ \x7f",
    width_px=512,
    height_px=768,
    steps=4,
    guidance=1.5,
    seeds=(0, 2**63),
    quantize=8,
    init_image="ab" * 32,
    further_init_images=("cd" * 32,),
    denoise=0.6,
    second_pass=SecondPass(width_px=1024, height_px=1536, steps=4, denoise=0.5, enlarge="nearest", prompt="larger"),
    previews=2,
)

COMMANDS: list[Frozen] = [
    Run(
        job="j",
        attempt=2,
        plan=GENERATE,
        spec=TINY,
        model_path="/models/ä b",
        inputs={"ab" * 32: "/in"},
        spool_dir="/spool",
        first_image=1,
        decode_beside=True,
        ends_beside=True,
        begins_beside=True,
    ),
    Run(job="j", attempt=1, plan=Load(model=KLEIN.name), spec=KLEIN, model_path="/m", spool_dir="/s"),
    Cancel(job="j"),
    Skip(job="j"),
    Ping(nonce=3),
]

FACTS = [
    ModelLoading(model="m"),
    ModelLoaded(model="m", seconds=1.25),
    StepDone(image=0, step=1, steps=4, seconds=0.1),
    Decoding(image=0),
    Denoised(image=0),
    Preview(image=0, step=2, jpeg_base64="/9j/"),
    Drawn(image=1, seed=9, spool="j.1.1.ppm", width_px=16, height_px=32, drawn_px=(128, 128), seconds=3.5),
    Succeeded(),
    Failed(code="engine_oom", message="No."),
    Cancelled(reason="shutdown"),
]

REPORTS: list[Frozen] = [
    Ready(backend="fake", device="none"),
    Pong(nonce=3),
    Memory(active_bytes=1, peak_bytes=2**40),
    *(JobReport(job="j", attempt=1, fact=fact) for fact in FACTS),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: type(c).__name__)
def test_engine_command_is_one_line_and_round_trips(command: Frozen) -> None:
    line = encode(command)
    assert line.count(b"\n") == 1
    assert decode_command(line) == command


@pytest.mark.parametrize("report", REPORTS, ids=lambda r: r.fact.kind if isinstance(r, JobReport) else r.kind)
def test_engine_report_is_one_line_and_round_trips(report: Frozen) -> None:
    line = encode(report)
    assert line.count(b"\n") == 1
    assert decode_report(line) == report


@pytest.mark.parametrize(
    "line", [b"", b"null\n", b"[]\n", b'{"kind":"run"}\n', b'{"kind":"pong","nonce":1}\n', b"\xff\n"]
)
def test_engine_invalid_command_is_refused(line: bytes) -> None:
    with pytest.raises(ValidationError):
        decode_command(line)


def test_engine_child_cannot_report_a_state_of_another_process() -> None:
    with pytest.raises(ValidationError):
        decode_report(b'{"kind":"job","job":"j","attempt":1,"fact":{"kind":"requeued","reason":"released"}}')


def test_engine_report_with_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError):
        decode_report(b'{"kind":"pong","nonce":1,"extra":1}')
