"""All that travels between gateway and engine: plans, facts, commands and reports, one JSON line each.

Knows nothing of HTTP, jobs in a queue, or MLX. Both halves of the child process import it.
"""

from __future__ import annotations

from typing import Annotated, Literal, assert_never

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from engine.catalog import HubFiles, ModelSpec


class Frozen(BaseModel):
    """A value: never changed, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# ---- plans: a request with no holes left -------------------------------------------------------


class Paste(Frozen):
    """Where a drawn picture belongs in a larger one. Boxes in pixels of that picture."""

    picture: str
    """Blob: the picture to lay the drawn one into; the result has its size."""
    further_pictures: tuple[str, ...] = ()
    """Blobs: what the pictures after the first are laid into in turn, one for each `further_init_images`."""
    mask: str
    """Blob: the drawn one shows where this is white, the old one where it is black."""
    left_px: int
    top_px: int
    width_px: int
    height_px: int


class Lora(Frozen):
    """A LoRA of the library, by its name there."""

    name: str
    scale: float = 1.0


MaskContent = Literal["original", "noise", "nothing"]


class Control(Frozen):
    """A picture whose outlines or depths the drawn one follows, by a model that has learnt to."""

    kind: Literal["canny", "depth"]
    image: str
    """Blob: for `depth` the map itself, near parts light."""
    is_map: bool = True
    """For `canny`: whether the picture is white edges on black already, or its edges are still to be found."""
    strength: float = 1.0
    """How closely: 0 to 2."""


class SecondPass(Frozen):
    """The drawn picture, enlarged so that it covers this size, cropped to it, and drawn over: "hires fix"."""

    width_px: int
    height_px: int
    steps: int
    denoise: float
    """0 leaves the enlarged picture as it is, 1 ignores it."""
    enlarge: Literal["lanczos", "nearest"] = "lanczos"
    prompt: str | None = None
    """Where it is another one than the first pass's."""


class Generate(Frozen):
    """Draw one picture a seed. The same plan gives the same pixels, always. Blobs are named by their sha256."""

    kind: Literal["generate"] = "generate"
    model: str
    prompt: str
    width_px: int
    height_px: int
    steps: int
    guidance: float
    negative_prompt: str | None = None
    """What to stay away from, for models that can; counts where guidance is above 1."""
    seeds: tuple[int, ...]
    quantize: int | None = None
    init_image: str | None = None
    """Blob."""
    further_init_images: tuple[str, ...] = ()
    """Blobs: the pictures after the first begin from these in turn, then from `init_image` again."""
    denoise: float = 1.0
    """0 keeps the input picture, 1 ignores it."""
    stretch_latents: bool = False
    """The input picture is brought to the size drawn as latents, not as pixels: by models of any size, unmasked."""
    second_pass: SecondPass | None = None
    mask: str | None = None
    """Blob: white is repainted, black stays as the input picture is."""
    mask_content: MaskContent = "original"
    """What the repainted part begins from, besides noise."""
    paste: Paste | None = None
    references: tuple[str, ...] = ()
    """Blobs: pictures that the drawn one follows, for models that edit."""
    control: Control | None = None
    loras: tuple[Lora, ...] = ()
    subseeds: tuple[int, ...] = ()
    """One a picture where `subseed_strength` is above 0."""
    subseed_strength: float = 0.0
    """How far the noise of a seed goes over into that of its subseed: 0 to 1."""
    previews: int = 0
    """At most this many previews a picture."""
    low_ram: bool = False
    """Decode in strips or tiles and keep no freed memory: less at the peak, slower."""

    @property
    def inputs(self) -> frozenset[str]:
        """All blobs the plan names."""
        paste = (self.paste.picture, *self.paste.further_pictures, self.paste.mask) if self.paste else ()
        control = self.control.image if self.control else None
        return frozenset(name for name in (*self.init_images, self.mask, *paste, *self.references, control) if name)

    @property
    def init_images(self) -> tuple[str, ...]:
        """What the pictures begin from, in turn."""
        return () if self.init_image is None else (self.init_image, *self.further_init_images)


class Upscale(Frozen):
    """Draw a picture larger, with details that it did not have; one picture a job."""

    kind: Literal["upscale"] = "upscale"
    model: str
    image: str
    """Blob."""
    width_px: int
    height_px: int
    """Of the result: the picture's proportions, rounded down to even numbers."""
    short_px: int
    """The result's shorter side, as mflux is told."""
    softness: float = 0.0
    """0 keeps what the picture has of detail, 1 blurs it eightfold before: 0 to 1."""
    seed: int
    quantize: int | None = None

    @property
    def inputs(self) -> frozenset[str]:
        """All blobs the plan names."""
        return frozenset({self.image})


class Load(Frozen):
    """Bring a model into memory."""

    kind: Literal["load"] = "load"
    model: str
    quantize: int | None = None

    @property
    def inputs(self) -> frozenset[str]:
        """All blobs the plan names: none."""
        return frozenset()


class Save(Frozen):
    """Write the loaded model, quantised as it is, into an empty folder; fails where another one is loaded."""

    kind: Literal["save"] = "save"
    model: str
    quantize: int
    folder: str
    """Absolute."""


class Ocr(Frozen):
    """Read the text of a picture, or of pages of a PDF."""

    kind: Literal["ocr"] = "ocr"
    model: str = "rapidocr"
    document: str
    """Blob: a checked PNG, or a PDF as it came."""
    pages: tuple[int, ...] = ()
    """Pages of the PDF in the order of the answer, counted from 1; empty where the document is a picture."""
    dpi: float = 200.0
    """How finely pages are rendered."""

    @property
    def inputs(self) -> frozenset[str]:
        """All blobs the plan names."""
        return frozenset({self.document})

    @property
    def count(self) -> int:
        """Pages to read; a picture is one."""
        return len(self.pages) or 1


class Download(Frozen):
    """Fetch the weights of a model from the hub."""

    kind: Literal["download"] = "download"
    model: str
    sources: tuple[HubFiles, ...]
    """The repositories the model needs, its own first."""

    @property
    def inputs(self) -> frozenset[str]:
        """All blobs the plan names: none."""
        return frozenset()


def steps_to_run(steps: int, denoise: float) -> int:
    """Steps an img2img picture runs: that fraction of the steps asked for, and one at least; 0 at denoise 0."""
    return max(1, round(steps * denoise)) if denoise > 0 else 0


Plan = Annotated[Generate | Upscale | Load | Ocr | Download, Field(discriminator="kind")]
EngineJob = Generate | Upscale | Load
"""What a job may have the engine do."""
EnginePlan = Annotated[Generate | Upscale | Load | Save, Field(discriminator="kind")]
"""What the engine's child may be told to do."""
Lane = Literal["engine", "cpu", "network"]
LANES: tuple[Lane, ...] = ("engine", "cpu", "network")


def lane_of(plan: EngineJob | Ocr | Download) -> Lane:
    """Where a plan runs: one runner a lane."""
    match plan:
        case Generate() | Upscale() | Load():
            return "engine"
        case Ocr():
            return "cpu"
        case Download():
            return "network"
        case _:
            assert_never(plan)


# ---- facts: frozen things that happened --------------------------------------------------------

FailureCode = Literal[
    "engine_crash",
    "engine_timeout",
    "engine_oom",
    "model_load_failed",
    "model_missing",
    "model_unavailable",
    "bad_input",
    "disk_full",
    "internal_error",
]
CancelReason = Literal["user", "client_gone", "shutdown"]
RequeueReason = Literal["engine_crash", "engine_timeout", "gateway_restart", "lease_expired", "released"]


class Queued(Frozen):
    """The job is on disk and waits."""

    kind: Literal["queued"] = "queued"


class Started(Frozen):
    """A runner claimed the job; `attempt` counts from 1 and fences every later write."""

    kind: Literal["started"] = "started"
    attempt: int


class ImageDone(Frozen):
    """One picture is complete on disk under `file`, a server-made name in the output folder."""

    kind: Literal["image_done"] = "image_done"
    image: int
    seed: int
    file: str
    width_px: int
    height_px: int
    drawn_px: tuple[int, int]
    """Width and height the model drew at; differs from the size where a model knows only its native one."""
    seconds: float
    cut_short: bool = False
    """Somebody skipped the rest of its steps."""


class TextLine(Frozen):
    """One line of text. `box` is its four corners (x, y), clockwise from the top left, in pixels of the page."""

    box: tuple[tuple[float, float], ...] = ()
    """Empty where the model does not say."""
    text: str
    score: float | None = None
    """How sure the model is: 0 to 1."""


class PageRead(Frozen):
    """One page was read; `page` counts from 0 within the job, its lines from top to bottom."""

    kind: Literal["page_read"] = "page_read"
    page: int
    width_px: int
    height_px: int
    lines: tuple[TextLine, ...]
    seconds: float

    @property
    def text(self) -> str:
        return "\n".join(line.text for line in self.lines)


class CancelRequested(Frozen):
    """Somebody asked a running job to stop."""

    kind: Literal["cancel_requested"] = "cancel_requested"
    reason: CancelReason = "user"


class Requeued(Frozen):
    """The job lost its runner and waits again, at its first undrawn seed or unread page."""

    kind: Literal["requeued"] = "requeued"
    reason: RequeueReason


class Succeeded(Frozen):
    """All pictures are there."""

    kind: Literal["succeeded"] = "succeeded"


class Failed(Frozen):
    """The job ended without its pictures. `message` is a sentence fit for a client."""

    kind: Literal["failed"] = "failed"
    code: FailureCode
    message: str


class Cancelled(Frozen):
    """The job was stopped; pictures finished before that are kept."""

    kind: Literal["cancelled"] = "cancelled"
    reason: CancelReason = "user"


class ModelDownloading(Frozen):
    """So much of the model has come from the hub; told of the download itself and of the jobs that wait for it."""

    kind: Literal["model_downloading"] = "model_downloading"
    model: str
    done_bytes: int
    """What lies on disk already is counted."""
    total_bytes: int
    bytes_per_s: float | None = None
    """Over the last seconds; None before there is a pace."""


class ModelLoading(Frozen):
    """The engine began to bring the model into memory."""

    kind: Literal["model_loading"] = "model_loading"
    model: str


class ModelLoaded(Frozen):
    """The model is in memory."""

    kind: Literal["model_loaded"] = "model_loaded"
    model: str
    seconds: float
    from_copy: bool = False
    """It came from a copy that was quantised before."""


class StepDone(Frozen):
    """One denoising step was evaluated. `step` counts from 1 to `steps`, the steps this picture really runs."""

    kind: Literal["step_done"] = "step_done"
    image: int
    step: int
    steps: int
    seconds: float


class Reading(Frozen):
    """The text of one page is looked for; this cannot be interrupted. `page` counts from 0 within the job."""

    kind: Literal["reading"] = "reading"
    page: int


class Decoding(Frozen):
    """The VAE turns latents into pixels; this cannot be interrupted."""

    kind: Literal["decoding"] = "decoding"
    image: int


class Preview(Frozen):
    """What the picture looks like so far: a small JPEG."""

    kind: Literal["preview"] = "preview"
    image: int
    step: int
    jpeg_base64: str


class Drawn(Frozen):
    """The pixels of one picture lie in the spool as a binary PPM; the gateway encodes and files them."""

    kind: Literal["drawn"] = "drawn"
    image: int
    seed: int
    spool: str
    width_px: int
    height_px: int
    drawn_px: tuple[int, int]
    seconds: float
    cut_short: bool = False
    """Somebody skipped the rest of its steps."""


StateFact = Annotated[
    Queued | Started | ImageDone | PageRead | CancelRequested | Requeued | Succeeded | Failed | Cancelled,
    Field(discriminator="kind"),
]
"""Stored with a `seq`; a job is folded from these."""

ProgressFact = Annotated[
    ModelDownloading | ModelLoading | ModelLoaded | StepDone | Decoding | Preview | Reading,
    Field(discriminator="kind"),
]
"""Broadcast only; the newest is kept."""

EngineFact = Annotated[
    ModelLoading | ModelLoaded | StepDone | Decoding | Preview | Drawn | Succeeded | Failed | Cancelled,
    Field(discriminator="kind"),
]
"""What the child may say of the job it holds."""


# ---- the wire ----------------------------------------------------------------------------------


class Run(Frozen):
    """Command: do this plan, beginning at picture `first_image`."""

    kind: Literal["run"] = "run"
    job: str
    attempt: int
    plan: EnginePlan
    spec: ModelSpec
    model_path: str
    """Absolute folder, resolved by the gateway."""
    copy_path: str | None = None
    """Absolute folder of the same weights, quantised as the plan wants them: loaded in the place of `model_path`."""
    also_paths: tuple[str, ...] = ()
    """One for each of the spec's further repositories, where they lie in folders of their own."""
    inputs: dict[str, str] = {}
    """Where what the plan names lies, blobs and LoRAs: absolute files."""
    spool_dir: str
    first_image: int = 0


class Cancel(Frozen):
    """Command: stop this job within one step; the model stays loaded."""

    kind: Literal["cancel"] = "cancel"
    job: str


class Skip(Frozen):
    """Command: leave out the rest of this picture's steps; it is finished as it stands, and the job goes on."""

    kind: Literal["skip"] = "skip"
    job: str


class Ping(Frozen):
    """Command: answer Pong once the work thread is free and clean."""

    kind: Literal["ping"] = "ping"
    nonce: int


class Ready(Frozen):
    """Report: the backend imported and waits for work."""

    kind: Literal["ready"] = "ready"
    backend: str
    device: str
    memory_limit_bytes: int | None = None
    """What the device lets one process use; None where it does not say."""


class Pong(Frozen):
    """Report: the answer to Ping."""

    kind: Literal["pong"] = "pong"
    nonce: int


class Memory(Frozen):
    """Report: bytes in use. The peak is that of the load or of the picture last begun."""

    kind: Literal["memory"] = "memory"
    active_bytes: int
    peak_bytes: int
    after: Literal["load", "step", "picture", "job"] = "job"


class JobReport(Frozen):
    """Report: a fact of the job the child holds."""

    kind: Literal["job"] = "job"
    job: str
    attempt: int
    fact: EngineFact


Command = Annotated[Run | Cancel | Skip | Ping, Field(discriminator="kind")]
Report = Annotated[Ready | Pong | Memory | JobReport, Field(discriminator="kind")]

MAX_LINE_BYTES = 8 * 1024 * 1024

_command: TypeAdapter[Run | Cancel | Skip | Ping] = TypeAdapter(Command)
_report: TypeAdapter[Ready | Pong | Memory | JobReport] = TypeAdapter(Report)


def encode(message: Frozen) -> bytes:
    """One line, newline included."""
    return message.model_dump_json().encode() + b"\n"


def decode_command(line: bytes) -> Run | Cancel | Skip | Ping:
    """Raises: pydantic.ValidationError for anything that is not a command."""
    return _command.validate_json(line)


def decode_report(line: bytes) -> Ready | Pong | Memory | JobReport:
    """Raises: pydantic.ValidationError for anything that is not a report."""
    return _report.validate_json(line)
