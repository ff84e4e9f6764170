"""Every setting with its default and its description. Knows no source: `sources.py` fills them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, SecretStr, model_validator
from pydantic.fields import FieldInfo

from engine.catalog import CATALOG, EMBEDDED
from gateway.files.address import check_endpoint
from gateway.jobs.limits import Limits
from gateway.lazy_model import LazyModel
from gateway.machine import host_name, total_bytes
from gateway.ocr.packages import MODEL as READER
from gateway.settings.checks import check_commits, check_model, clip
from gateway.settings.values import (
    Bits,
    Bytes,
    Count,
    DatabaseUrl,
    Endpoint,
    FilesUrl,
    FolderPath,
    Gigabytes,
    HostName,
    Port,
    PublicUrl,
    Seconds,
    WebOrigin,
)

FAST_DEFAULT = "flux2-klein-4b"

MIB = 1024 * 1024


class SettingsError(Exception):
    """The settings cannot be used; the text is one line for the person who wrote them."""


class Section(LazyModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerSettings(Section):
    host: str = Field(
        default="127.0.0.1", description="Address to listen on; all but loopback addresses need access.keys_file."
    )
    port: Port = Field(default=7861, description="Port to listen on.")
    extra_ports: tuple[Port, ...] = Field(default=(), description="Further ports for the same server, such as 4030.")
    public_url: PublicUrl | None = Field(
        default=None, description="Beginning of image URLs if clients reach the server under another name."
    )

    @property
    def ports(self) -> tuple[int, ...]:
        return (self.port, *self.extra_ports)


class LocalModel(Section):
    """A folder of weights, or a checkpoint of Stable Diffusion in one file, and the catalogue model with its
    architecture; null: detected from the folder.
    """

    path: FolderPath
    like: str | None = None


# Compiled by Python: pydantic's own engine takes 17 MB and tens of milliseconds for the counted \w of Unicode.
RepoName = Annotated[str, Field(pattern=re.compile(r"^[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}\Z"))]


class HubModel(Section):
    """A hub repository, the catalogue model with its layout, and the commit; null: the first one downloaded."""

    repo: RepoName
    like: str
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None


class ModelSettings(Section):
    default: str | None = Field(
        default=None,
        description=f"Model for requests that name none; null: with Metal or CUDA the best of {FAST_DEFAULT}, "
        f"its -mlx-8bit and its -mlx-4bit that fits into memory, otherwise {EMBEDDED}.",
    )
    auto_download: bool = Field(
        default=True, description="Download models and LoRAs from the hub when a request needs them."
    )
    fall_back_to_main: tuple[RepoName, ...] = Field(
        default=(), description="Hub repositories that are used at main if their pinned commit is gone."
    )
    cache_dir: FolderPath = Field(default=Path("models"), description="Folder of the models.")
    aliases: dict[str, str] = Field(default={}, description="Other names for models: {alias: model}.")
    local: dict[str, LocalModel] = Field(
        default={}, description="Folders served as models: {name: {path: /folder, like: catalogue-name}}."
    )
    checkpoint_dirs: tuple[FolderPath, ...] = Field(
        default=(),
        description="Folders of Stable Diffusion checkpoints: .safetensors files and diffusers folders, each a model.",
    )
    vae_dirs: tuple[FolderPath, ...] = Field(default=(), description="Folders of VAE files for checkpoints.")
    embedding_dirs: tuple[FolderPath, ...] = Field(default=(), description="Folders of textual inversions.")
    a1111_dir: FolderPath | None = Field(
        default=None,
        description="Folder of AUTOMATIC1111, whose checkpoints, VAE files, textual inversions and LoRAs are used.",
    )
    hash_checkpoints: bool = Field(
        default=True,
        description="Read each new checkpoint once, in the background, for the hash that A1111's clients name it by.",
    )
    hub: dict[str, HubModel] = Field(
        default={},
        description="Further models from the hub: {name: {repo: org/name, like: catalogue-name, revision: commit}}.",
    )
    keep_quantized: bool = Field(
        default=True, description="Save models that are quantised at load below cache_dir, and load those copies later."
    )
    quantize: Bits | None = Field(
        default=None, description="Bits to quantise models to at load: 3, 4, 5, 6, 8 or null."
    )
    steps_as_sent: bool = Field(
        default=False, description="Run as many steps as requested, even if more steps improve nothing."
    )

    @property
    def has_checkpoints(self) -> bool:
        """Whether there may be models that only their folders name."""
        return bool(self.checkpoint_dirs) or self.a1111_dir is not None


class GenerationSettings(Section):
    default_steps: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Steps for requests that name none; null: the model's default."
    )
    max_batch_size: Annotated[int, Field(ge=1, le=10)] = Field(
        default=10, description="Images that one job may request, 1 to 10."
    )
    output_dir: FolderPath = Field(default=Path("output"), description="Folder of the images.")
    sign_pictures: bool = Field(
        default=True, description="Write into each image file how it was made: prompt, model, seed and so on."
    )
    write_infotexts: bool = Field(
        default=True, description="Also write A1111's infotext, which other programs read; needs sign_pictures."
    )
    share_pictures: bool = Field(
        default=False,
        description="Keep the mode of output_dir: other users who may list it may read the images.",
    )
    styles_file: FolderPath | None = Field(
        default=None, description="Prompt styles of /sdapi: A1111's styles.csv, or YAML rows of the same names."
    )
    previews: bool = Field(default=True, description="Make small previews while an image is generated.")
    max_px: Annotated[int, Field(ge=64, le=8192)] = Field(
        default=8192, description="Longest edge of an image, in pixels."
    )
    max_pixels: Annotated[int, Field(ge=4096, le=16_777_216)] = Field(
        default=8_847_360, description="Largest image, as width x height: 4096x2160."
    )
    max_own_px: Annotated[int, Field(ge=64, le=8192)] = Field(
        default=2048, description="Longest edge of an image whose size comes from an input image, not from the request."
    )
    max_own_pixels: Annotated[int, Field(ge=4096, le=16_777_216)] = Field(
        default=4_194_304, description="Largest image whose size comes from an input image, as width x height."
    )
    max_job_pixels: Annotated[int, Field(ge=4096, le=167_772_160)] = Field(
        default=88_473_600, description="All images of one job together, as width x height x images."
    )
    max_upscaled_pixels: Annotated[int, Field(ge=4096, le=16_777_216)] = Field(
        default=16_777_216, description="Largest upscaled image, as width x height."
    )
    max_steps: Annotated[int, Field(ge=1, le=1000)] = Field(default=100, description="Maximum steps of one image.")
    max_pixel_steps: Count = Field(
        default=1_000_000_000, description="Largest cost of one job: width x height x steps x images."
    )
    max_prompt_bytes: Bytes = Field(
        default=32 * 1024, description="Largest size of both prompts together, in bytes of UTF-8."
    )

    @property
    def limits(self) -> Limits:
        """These bounds for `gateway.jobs.resolve.resolve`."""
        return Limits(
            max_px=self.max_px,
            max_pixels=self.max_pixels,
            max_own_px=self.max_own_px,
            max_own_pixels=self.max_own_pixels,
            max_job_pixels=self.max_job_pixels,
            max_steps=self.max_steps,
            max_count=self.max_batch_size,
            max_pixel_steps=self.max_pixel_steps,
            max_prompt_bytes=self.max_prompt_bytes,
            max_upscaled_pixels=self.max_upscaled_pixels,
        )


LoraPath = Annotated[str, Field(pattern=r"^(?:[\w-][\w. -]*/)*[\w-][\w. -]*\.safetensors$", max_length=200)]


class HubLora(Section):
    """A LoRA in a hub repository, or all of them, and the catalogue model they are for."""

    repo: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$", max_length=200)]
    file: LoraPath | None = None
    revision: Annotated[str, Field(pattern=r"^[\w.-]+$", max_length=100)] | None = None
    like: str = FAST_DEFAULT


LoraName = Annotated[str, Field(pattern=r"^[^<>:\"|?*\\/.][^<>:\"|?*\\/]*$", max_length=100)]


class LoraSettings(Section):
    folders: tuple[FolderPath, ...] = Field(
        default=(), description="Folders of LoRAs, besides the folder loras in models.cache_dir."
    )
    aliases: dict[str, str] = Field(default={}, description="Other names for LoRAs: {alias: name}.")
    hub: dict[LoraName, HubLora] = Field(
        default={},
        description="LoRAs from the hub: {name: {repo: user/repository, file: x.safetensors, like: catalogue-name}}; "
        "without file, all in the repository, as name/file.",
    )


class StoreSettings(Section):
    url: DatabaseUrl | None = Field(
        default=None,
        repr=False,
        description="PostgreSQL database that several gateways and workers share, such as"
        " postgresql://mflux@mac-1/mflux; null: an SQLite file in data_dir.",
    )
    data_dir: FolderPath = Field(
        default=Path("data"), description="Folder of the job database and of clients' input files."
    )
    backup_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=1, description="Hours between backups of the job database, of which two are kept; null: no backups."
    )
    min_free_gb: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=1, description="Gigabytes that must be free on the disks of jobs and images to accept a job."
    )

    inputs_gb: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=10, description="Gigabytes of stored input images; half of it for one key or address."
    )


class FilesSettings(Section):
    url: FilesUrl | None = Field(
        default=None,
        description="Place of images, inputs and previews that several gateways share: file:///folder, or "
        "s3://bucket/prefix (needs the extra s3); null: generation.output_dir and store.data_dir.",
    )
    endpoint: Endpoint | None = Field(
        default=None,
        description="Address of an S3 storage, as https://minio.example:9000; null: AWS_ENDPOINT_URL.",
    )
    region: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")] | None = Field(
        default=None, description="Region of the bucket; null: AWS_REGION."
    )
    access_key_id: SecretStr | None = Field(
        default=None, description="Key to the bucket; null: AWS_ACCESS_KEY_ID, or what the machine's role gives."
    )
    secret_access_key: SecretStr | None = Field(
        default=None, description="Secret of that key; null: AWS_SECRET_ACCESS_KEY."
    )
    allow_http: bool = Field(
        default=False, description="Allow an endpoint with http:// on another machine: others may read the images."
    )
    ca_file: FolderPath | None = Field(
        default=None, description="Certificates (PEM) that are trusted for the endpoint, besides the system's."
    )
    timeout_s: Seconds = Field(
        default=60, description="Seconds that one call of the storage may take, further tries included."
    )
    presigned: bool = Field(
        default=False,
        description="Redirect programs that fetch a whole image of /api/v1 to an address of the storage, valid for a "
        "minute; see docs/files.md.",
    )


class QueueSettings(Section):
    waiting: Annotated[int, Field(ge=1, le=100_000)] = Field(default=1000, description="Maximum waiting jobs in all.")
    waiting_per_owner: Count | None = Field(
        default=50, description="Maximum waiting jobs of one key; used if there are keys."
    )


LaneName = Literal["engine", "ocr", "network"]
LANE_NAMES: tuple[LaneName, ...] = ("engine", "ocr", "network")
NodeName = Annotated[str, Field(pattern=re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"))]
LabelText = Annotated[str, Field(min_length=1, max_length=64)]


class WorkerSettings(Section):
    name: NodeName | None = Field(
        default=None, description="Name of this process among those that share store.url; null: the host's name."
    )
    lanes: tuple[LaneName, ...] = Field(
        default=LANE_NAMES,
        description="What this process runs of engine, ocr and network (downloads); []: nothing, it only serves.",
    )
    labels: dict[NodeName, LabelText] = Field(
        default={}, description="Labels of this process in lists of workers: {name: text}."
    )
    lease_s: Annotated[float, Field(ge=1, le=3600)] = Field(
        default=20, description="Seconds of silence after which another worker takes over a job."
    )
    drain_s: Annotated[float, Field(ge=0, le=86400)] = Field(
        default=600,
        description="Seconds in which running jobs may end when a worker is stopped; then they wait again.",
    )

    @model_validator(mode="after")
    def _each_lane_once(self) -> WorkerSettings:
        if len(set(self.lanes)) != len(self.lanes):
            raise ValueError("lanes: each lane is named once")
        return self


class RetentionSettings(Section):
    days: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=7, description="Days after which inputs and events of finished jobs are deleted."
    )
    quota_gb: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=20, description="Gigabytes of stored images; the oldest are deleted first."
    )
    jobs: Count = Field(default=5000, description="Maximum finished jobs; the oldest are deleted first.")
    url_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=24, description="Hours for which image URLs of /v1 are valid."
    )


class EngineSettings(Section):
    backend: Literal["mlx", "fake"] = Field(
        default="mlx", description="Engine backend: mlx, or fake for developing clients without a model."
    )
    fake_script: str | None = Field(default=None, description="Script for the fake backend; for tests.")
    start_s: Seconds = Field(default=60, description="Seconds that the engine may take to start.")
    load_s: Seconds = Field(default=600, description="Seconds that a model may take to load.")
    step_floor_s: Seconds = Field(
        default=60, description="Minimum seconds allowed for one step; more if steps are slow."
    )
    decode_s: Seconds = Field(default=180, description="Seconds that decoding an image may take.")
    cancel_grace_s: Seconds = Field(
        default=10, description="Seconds in which the engine must stop a cancelled job before it is replaced."
    )
    lookahead: Annotated[int, Field(ge=0, le=100)] = Field(
        default=0, description="Jobs of the loaded model that may overtake a job of another model; 0: strict order."
    )
    memory_gb: Gigabytes | None = Field(
        default=None, description="Gigabytes of memory for models and images; null: what the device has."
    )
    cache_limit_gb: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None,
        description="Gigabytes of freed memory that MLX keeps; null: 1, on a CPU at most 5% of all.",
    )
    idle_unload_s: Seconds | None = Field(
        default=None, description="Seconds without a job after which the model is unloaded; null: never."
    )
    low_ram: bool = Field(default=False, description="Use less memory, but more time, for requests without low_ram.")
    decode_beside: bool | None = Field(
        default=None,
        description="Decode an image while the next one is drawn, where memory suffices; null: on a CPU.",
    )


class OcrSettings(Section):
    max_pages: Annotated[int, Field(ge=1, le=2000)] = Field(
        default=200, description="Maximum PDF pages of one request."
    )
    page_s: Seconds = Field(default=120, description="Seconds that reading one page may take.")
    render_s: Seconds = Field(default=10, description="Seconds that rendering one PDF page may take.")
    document_s: Seconds = Field(default=1800, description="Seconds that all pages of one document may take together.")
    idle_s: Seconds = Field(default=300, description="Seconds for which the idle OCR process is kept.")
    threads: Annotated[int, Field(ge=1, le=64)] | None = Field(
        default=None, description="Threads for OCR; null: one less than processors, four at most."
    )
    models: dict[Annotated[str, Field(min_length=1, max_length=128)], FolderPath] = Field(
        default={}, description="Vision models for OCR with mlx-vlm: {name: /folder}."
    )
    default: str = Field(
        default=READER, description=f"Model for OCR requests that name none: {READER}, or one of models."
    )


class AccessSettings(Section):
    keys_file: FolderPath | None = Field(
        default=None, description='File with a line "name key" for each client; mode 0600.'
    )
    operators: tuple[str, ...] = Field(
        default=(),
        description="Names of keys that may do what affects others: download, remove, unload, pause, raise priority.",
    )
    allow_open: bool = Field(default=False, description="Allow other machines to connect without any key.")
    hosts: tuple[HostName, ...] = Field(
        default=(),
        description="Host names of this server, besides loopback and the names that containers use for their host.",
    )
    origins: tuple[WebOrigin, ...] = Field(
        default=(),
        description="Web origins that may send requests, besides loopback, such as https://ui.example or app://name; "
        '"null" means every page opened as a file, "*" every origin.',
    )


class HttpSettings(Section):
    default_body_bytes: Bytes = Field(
        default=256 * 1024, description="Largest body on routes without images, in bytes."
    )
    image_body_bytes: Bytes = Field(default=128 * MIB, description="Largest body on routes that take images, in bytes.")
    body_memory_mb: Count | None = Field(
        default=None,
        description="Megabytes for all bodies over 256 KiB together, half of it for one client; "
        "null: 1/16 of the memory, 128 to 1024.",
    )
    header_deadline_s: Seconds = Field(default=10, description="Seconds in which a client must send its headers.")
    body_deadline_s: Seconds = Field(default=60, description="Seconds in which a client must send its body.")
    body_window_s: Seconds = Field(default=10, description="Seconds over which body_bytes_per_s is averaged.")
    body_bytes_per_s: Annotated[int, Field(ge=0)] = Field(
        default=16 * 1024, description="Minimum bytes per second of a body; slower ones are refused."
    )
    keep_alive_s: Annotated[int, Field(ge=1)] = Field(
        default=75,
        description="Seconds for which an idle connection is kept, as told to clients; it closes a bit later.",
    )
    max_connections: Count = Field(default=1024, description="Maximum connections in all.")
    max_connections_per_ip: Count = Field(
        default=64, description="Maximum connections of one address; loopback is not counted."
    )
    sync_waits: Count = Field(default=256, description="Maximum requests that wait for their image at the same time.")
    max_streams: Count = Field(default=1000, description="Maximum event streams in all.")
    max_streams_per_client: Count = Field(
        default=16, description="Maximum event streams of one key, X-Client-Id or address."
    )
    heartbeat_s: Seconds = Field(
        default=15, description="Seconds of silence after which an event stream sends a comment."
    )
    stuck_s: Seconds = Field(default=30, description="Seconds after which a client that reads nothing is disconnected.")
    shutdown_s: Annotated[float, Field(ge=0.1, le=60)] = Field(
        default=1.5,
        description="Seconds in which open requests must end when the server stops, of 3.5 s in all.",
    )

    @property
    def body_memory_bytes(self) -> int:
        """`body_memory_mb` in bytes, or its default for this machine."""
        if self.body_memory_mb is not None:
            return self.body_memory_mb * MIB
        return min(1024 * MIB, max(128 * MIB, total_bytes() // 16))


class LogSettings(Section):
    level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(lambda v: v.upper() if isinstance(v, str) else v)
    ] = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR. Prompts appear in DEBUG only.")


class Settings(LazyModel):
    """All settings. Built by `load_settings`; `Settings()` has the defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    server: ServerSettings = Field(default_factory=ServerSettings, description="Addresses of the server.")
    models: ModelSettings = Field(default_factory=ModelSettings, description="Models.")
    loras: LoraSettings = Field(default_factory=LoraSettings, description="LoRAs.")
    generation: GenerationSettings = Field(
        default_factory=GenerationSettings, description="Images, and limits of one job."
    )
    store: StoreSettings = Field(default_factory=StoreSettings, description="Storage of jobs and inputs.")
    files: FilesSettings = Field(
        default_factory=FilesSettings, description="Place of images and inputs, where several gateways share one."
    )
    queue: QueueSettings = Field(default_factory=QueueSettings, description="Limits of the queue.")
    worker: WorkerSettings = Field(
        default_factory=WorkerSettings, description="This process among several that share store.url."
    )
    retention: RetentionSettings = Field(default_factory=RetentionSettings, description="Retention of jobs and images.")
    engine: EngineSettings = Field(
        default_factory=EngineSettings, description="The engine process, which generates images."
    )
    ocr: OcrSettings = Field(default_factory=OcrSettings, description="OCR: text in images and PDFs.")
    access: AccessSettings = Field(default_factory=AccessSettings, description="Access to the server.")
    http: HttpSettings = Field(default_factory=HttpSettings, description="Limits of connections and requests.")
    log: LogSettings = Field(default_factory=LogSettings, description="Logs on stderr.")

    @model_validator(mode="after")
    def _models_exist(self) -> Settings:
        models = self.models
        known = {spec.name for spec in CATALOG if spec.unavailable is None}
        served = known | set(models.local) | set(models.hub)
        for name, local in models.local.items():
            if local.like is not None:
                check_model(f"models.local.{name}.like", local.like, known)
        for name, hub in models.hub.items():
            check_model(f"models.hub.{name}.like", hub.like, known - {EMBEDDED})
            if name in known | set(models.local):
                raise ValueError(f"models.hub.{clip(name)}: there is another model of that name")
        if not models.has_checkpoints:  # else the library looks into their folders
            for name, target in models.aliases.items():
                check_model(f"models.aliases.{name}", target, served)
            if models.default is not None:
                check_model("models.default", models.default, served | set(models.aliases))
        for name, lora in self.loras.hub.items():
            check_model(f"loras.hub.{name}.like", lora.like, known)
        check_commits(
            (f"{section}.hub.{name}", entry.repo, entry.revision)
            for section, entries in (("models", models.hub), ("loras", self.loras.hub))
            for name, entry in entries.items()
        )
        for name in self.ocr.models:
            if name in served | set(models.aliases) | {READER}:
                raise ValueError(f"ocr.models.{clip(name)}: there is another model of that name")
        check_model("ocr.default", self.ocr.default, set(self.ocr.models) | {READER})
        return self

    @property
    def node_name(self) -> str:
        """The name of this process among those that share a job store."""
        return self.worker.name or host_name()

    def check_worker(self) -> None:
        """Raises: SettingsError if this process cannot be a worker."""
        if self.store.url is None:
            raise SettingsError(
                "a worker needs the job store of its gateways: set store.url (--store) to postgresql://..., as theirs"
            )
        if not self.worker.lanes:
            raise SettingsError("worker.lanes: a worker without lanes would do nothing; name engine, ocr or network")
        if self.files.url is None:
            raise SettingsError(
                "a worker needs the images and inputs of its gateways: set files.url (--files) to a folder that all"
                " machines share, or to s3://bucket, as theirs"
            )

    def check_lanes(self) -> None:
        """Raises: SettingsError if jobs would never run, because no other process can have them."""
        if self.store.url is None and set(self.worker.lanes) != set(LANE_NAMES):
            raise SettingsError("worker.lanes: without store.url there are no workers, so a gateway runs all lanes")

    @model_validator(mode="after")
    def _endpoint_is_private(self) -> Settings:
        if self.files.endpoint is not None:
            try:
                check_endpoint(self.files.endpoint, allows_http=self.files.allow_http)
            except ValueError as error:
                raise ValueError(f"files.endpoint: {error}") from None
        return self

    def check_bind(self) -> None:
        """Raises: SettingsError if other machines could connect without a key (S-01)."""
        if self.access.keys_file is None and not self.access.allow_open and not is_loopback(self.server.host):
            raise SettingsError(
                f"server.host {self.server.host} can be reached by other machines: set access.keys_file (--keys-file), "
                "or access.allow_open: true (--allow-open)"
            )


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def keys() -> Iterator[tuple[str, str]]:
    """Every (section, key)."""
    return ((section, key) for section in Settings.model_fields for key in fields_of(section))


def fields_of(section: str) -> Mapping[str, FieldInfo]:
    """The fields of a section by key. Raises: KeyError if there is no such section."""
    model = Settings.model_fields[section].annotation
    assert isinstance(model, type)
    assert issubclass(model, Section)
    return model.model_fields
