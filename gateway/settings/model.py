"""Every setting with its default and its sentence. Knows no source: `sources.py` fills it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from engine.catalog import CATALOG, EMBEDDED
from gateway.jobs.resolve import Limits
from gateway.machine import total_bytes
from gateway.ocr.packages import MODEL as READER
from gateway.settings.checks import check_commits, check_model, clip
from gateway.settings.values import (
    Bits,
    Bytes,
    Count,
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


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerSettings(Section):
    host: str = Field(default="127.0.0.1", description="Address to listen on; any but loopback needs access.keys_file.")
    port: Port = Field(default=7861, description="Port to listen on.")
    extra_ports: tuple[Port, ...] = Field(default=(), description="More ports for the same server, such as 4030.")
    public_url: PublicUrl | None = Field(
        default=None, description="What picture URLs begin with, when the server stands behind another name."
    )

    @property
    def ports(self) -> tuple[int, ...]:
        return (self.port, *self.extra_ports)


class LocalModel(Section):
    """A folder of weights, and the catalogue model whose architecture it has; null: what the folder itself says."""

    path: FolderPath
    like: str | None = None


RepoName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}$")]


class HubModel(Section):
    """A hub repository, the catalogue model it is laid out like, and the commit; null: the first that is fetched."""

    repo: RepoName
    like: str
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None


class ModelSettings(Section):
    default: str | None = Field(
        default=None,
        description=f"Model of requests that name none; null: with Metal or CUDA the best of {FAST_DEFAULT}, "
        f"its -mlx-8bit and its -mlx-4bit that fits the memory, else {EMBEDDED}.",
    )
    auto_download: bool = Field(
        default=True, description="Fetch models and LoRAs of the hub that are asked for and not on disk."
    )
    fall_back_to_main: tuple[RepoName, ...] = Field(
        default=(), description="Hub repositories that are taken at main where the commit that is pinned is gone."
    )
    cache_dir: FolderPath = Field(default=Path("models"), description="Folder the models are kept in.")
    aliases: dict[str, str] = Field(default={}, description="Other names for models: {asked-for: served}.")
    local: dict[str, LocalModel] = Field(
        default={}, description="Folders served as models: {name: {path: /folder, like: catalogue-name}}."
    )
    hub: dict[str, HubModel] = Field(
        default={},
        description="More hub repositories: {name: {repo: org/name, like: catalogue-name, revision: commit}}.",
    )
    keep_quantized: bool = Field(
        default=True, description="Save models quantised at load below cache_dir, and load those copies from then on."
    )
    quantize: Bits | None = Field(default=None, description="Bits to quantise to at load: 3, 4, 5, 6, 8 or null.")
    steps_as_sent: bool = Field(default=False, description="Run as many steps as asked, even where more add nothing.")


class GenerationSettings(Section):
    default_steps: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Steps of requests that name none; null is the model's own number."
    )
    max_batch_size: Annotated[int, Field(ge=1, le=10)] = Field(
        default=10, description="Pictures one job may ask for, 1 to 10."
    )
    output_dir: FolderPath = Field(default=Path("output"), description="Folder the pictures are kept in.")
    sign_pictures: bool = Field(
        default=True, description="Write into each picture file how it was drawn: prompt, model, seed and the rest."
    )
    write_infotexts: bool = Field(
        default=True, description="Say so in A1111's words, too, which other programs read; with sign_pictures only."
    )
    share_pictures: bool = Field(
        default=False,
        description="Leave output_dir as open as it is: other users who may list it may read the pictures.",
    )
    styles_file: FolderPath | None = Field(
        default=None, description="Prompt styles of /sdapi: A1111's styles.csv, or YAML rows of the same names."
    )
    previews: bool = Field(default=True, description="Draw small previews while a picture is made.")
    max_px: Annotated[int, Field(ge=64, le=8192)] = Field(
        default=8192, description="Longest edge of a picture, in pixels."
    )
    max_pixels: Annotated[int, Field(ge=4096, le=16_777_216)] = Field(
        default=8_847_360, description="Largest picture, as width x height: 4096x2160."
    )
    max_own_px: Annotated[int, Field(ge=64, le=8192)] = Field(
        default=2048, description="Longest edge of a picture that nobody named a size for: it has that of a photo."
    )
    max_own_pixels: Annotated[int, Field(ge=4096, le=16_777_216)] = Field(
        default=4_194_304, description="Largest picture that nobody named a size for, as width x height."
    )
    max_job_pixels: Annotated[int, Field(ge=4096, le=167_772_160)] = Field(
        default=88_473_600, description="All pictures of one job together, as width x height x pictures."
    )
    max_upscaled_pixels: Annotated[int, Field(ge=4096, le=16_777_216)] = Field(
        default=16_777_216, description="Largest upscaled picture, as width x height."
    )
    max_steps: Annotated[int, Field(ge=1, le=1000)] = Field(default=100, description="Steps one picture may take.")
    max_pixel_steps: Count = Field(
        default=1_000_000_000, description="Cost of one job: width x height x steps x pictures."
    )
    max_prompt_bytes: Bytes = Field(default=32 * 1024, description="Both prompts together, in bytes of UTF-8.")

    @property
    def limits(self) -> Limits:
        """These bounds, as `gateway.jobs.resolve.resolve` takes them."""
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
    """A LoRA of a hub repository, or all of them, and the catalogue model they are for."""

    repo: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$", max_length=200)]
    file: LoraPath | None = None
    revision: Annotated[str, Field(pattern=r"^[\w.-]+$", max_length=100)] | None = None
    like: str = FAST_DEFAULT


LoraName = Annotated[str, Field(pattern=r"^[^<>:\"|?*\\/.][^<>:\"|?*\\/]*$", max_length=100)]


class LoraSettings(Section):
    folders: tuple[FolderPath, ...] = Field(
        default=(), description="Folders of LoRAs, beside the folder loras of models.cache_dir."
    )
    aliases: dict[str, str] = Field(default={}, description="Other names for LoRAs: {asked-for: name}.")
    hub: dict[LoraName, HubLora] = Field(
        default={},
        description="LoRAs of the hub: {name: {repo: user/repository, file: x.safetensors, like: catalogue-name}}; "
        "without file all of the repository, as name/file.",
    )


class StoreSettings(Section):
    data_dir: FolderPath = Field(
        default=Path("data"), description="Folder of the job database and of what clients sent in."
    )
    backup_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=1, description="Hours between copies of the job database, the newest two of them kept; null: none."
    )
    min_free_gb: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=1, description="Gigabytes that must be free on the disks of jobs and pictures for a new job."
    )

    inputs_gb: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=10, description="Gigabytes of pictures sent in that are kept; half of it for one key or address."
    )


class QueueSettings(Section):
    waiting: Annotated[int, Field(ge=1, le=100_000)] = Field(default=1000, description="Jobs that may wait in all.")
    waiting_per_owner: Count | None = Field(
        default=50, description="Jobs one key may have waiting; used when there are keys."
    )


class RetentionSettings(Section):
    days: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=7, description="Days until inputs and event logs of finished jobs go."
    )
    quota_gb: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=20, description="Gigabytes of pictures kept; the oldest go first."
    )
    jobs: Count = Field(default=5000, description="Finished jobs kept; the oldest go first.")
    url_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=24, description="Hours the picture URLs of /v1 work."
    )


class EngineSettings(Section):
    backend: Literal["mlx", "fake"] = Field(
        default="mlx", description="What draws: mlx, or fake for developing clients."
    )
    fake_script: str | None = Field(default=None, description="What the fake backend is to do; for tests.")
    start_s: Seconds = Field(default=60, description="Seconds the engine may take to start.")
    load_s: Seconds = Field(default=600, description="Seconds a model may take to load.")
    step_floor_s: Seconds = Field(
        default=60, description="Seconds one step may always take; more where steps are slow."
    )
    decode_s: Seconds = Field(default=180, description="Seconds the last phase of a picture may take.")
    cancel_grace_s: Seconds = Field(
        default=10, description="Seconds the engine has to obey a cancel before it is replaced."
    )
    lookahead: Annotated[int, Field(ge=0, le=100)] = Field(
        default=0, description="Jobs of the loaded model that may pass one of another model; 0 keeps the order strict."
    )
    memory_gb: Gigabytes | None = Field(
        default=None, description="Gigabytes models and pictures may take; null: what the device has."
    )
    cache_limit_gb: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None, description="Gigabytes of freed memory MLX keeps; null: 1 on a GPU, MLX's own on a CPU."
    )
    idle_unload_s: Seconds | None = Field(
        default=None, description="Seconds without a job after which the model is unloaded; null: never."
    )
    low_ram: bool = Field(
        default=False, description="Draw with less memory, slower, where a request does not say low_ram."
    )


class OcrSettings(Section):
    max_pages: Annotated[int, Field(ge=1, le=2000)] = Field(
        default=200, description="Pages of a PDF one request may have read."
    )
    page_s: Seconds = Field(default=120, description="Seconds one page may take to be read.")
    render_s: Seconds = Field(default=10, description="Seconds one page of a PDF may take to become a picture.")
    document_s: Seconds = Field(default=1800, description="Seconds all pages of one document may take together.")
    idle_s: Seconds = Field(
        default=300, description="Seconds the process that reads text is kept when it has nothing to do."
    )
    threads: Annotated[int, Field(ge=1, le=64)] | None = Field(
        default=None, description="Threads that read text; null: one less than processors, four at most."
    )
    models: dict[Annotated[str, Field(min_length=1, max_length=128)], FolderPath] = Field(
        default={}, description="Vision models that read text through mlx-vlm: {name: /folder}."
    )
    default: str = Field(default=READER, description=f"What reads where nothing is named: {READER}, or one of models.")


class AccessSettings(Section):
    keys_file: FolderPath | None = Field(
        default=None, description='File with a line "name key" for each client; mode 0600.'
    )
    operators: tuple[str, ...] = Field(
        default=(),
        description="Names of keys that may do what others feel: fetch, remove, unload, pause, go first.",
    )
    allow_open: bool = Field(default=False, description="Listen beyond loopback without any key.")
    hosts: tuple[HostName, ...] = Field(
        default=(),
        description="Names clients reach this server by, beside loopback and what containers call their host.",
    )
    origins: tuple[WebOrigin, ...] = Field(
        default=(),
        description="Web origins that may call, beside loopback ones, such as https://ui.example or app://name; "
        '"null" is every page that was opened as a file, "*" lets all in.',
    )


class HttpSettings(Section):
    default_body_bytes: Bytes = Field(default=256 * 1024, description="Largest body on routes without pictures.")
    image_body_bytes: Bytes = Field(default=128 * MIB, description="Largest body on routes that take pictures.")
    body_memory_mb: Count | None = Field(
        default=None,
        description="Megabytes that bodies over 256 KiB may hold together, one client half of it; "
        "null: a sixteenth of the memory, 128 to 1024.",
    )
    header_deadline_s: Seconds = Field(default=10, description="Seconds a client has to send its headers.")
    body_deadline_s: Seconds = Field(default=60, description="Seconds a client has to send its body.")
    body_window_s: Seconds = Field(default=10, description="Seconds over which body_bytes_per_s is averaged.")
    body_bytes_per_s: Annotated[int, Field(ge=0)] = Field(
        default=16 * 1024, description="Slowest body that is waited for."
    )
    keep_alive_s: Annotated[int, Field(ge=1)] = Field(
        default=75, description="Seconds an idle connection is kept, as clients are told; it is closed a little later."
    )
    max_connections: Count = Field(default=1024, description="Connections in all.")
    max_connections_per_ip: Count = Field(
        default=64, description="Connections of one address; loopback is not counted."
    )
    sync_waits: Count = Field(default=256, description="Requests that may wait for their picture at the same time.")
    max_streams: Count = Field(default=1000, description="Event streams open at the same time.")
    max_streams_per_client: Count = Field(default=16, description="Event streams of one key, X-Client-Id or address.")
    heartbeat_s: Seconds = Field(
        default=15, description="Seconds of silence after which an event stream sends a comment."
    )
    stuck_s: Seconds = Field(
        default=30, description="Seconds a client may take nothing of what is sent to it before it is let go."
    )
    shutdown_s: Annotated[float, Field(ge=0.1, le=60)] = Field(
        default=1.5,
        description="Seconds open requests have to end when the server stops, of 3.5 s in all.",
    )

    @property
    def body_memory_bytes(self) -> int:
        """`body_memory_mb`, or what this machine's memory allows."""
        if self.body_memory_mb is not None:
            return self.body_memory_mb * MIB
        return min(1024 * MIB, max(128 * MIB, total_bytes() // 16))


class LogSettings(Section):
    level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(lambda v: v.upper() if isinstance(v, str) else v)
    ] = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR. Prompts appear in DEBUG only.")


class Settings(BaseSettings):
    """Everything the owner may decide. Built by `load_settings`; `Settings()` is the defaults."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    server: ServerSettings = Field(default=ServerSettings(), description="Where the server listens.")
    models: ModelSettings = Field(default=ModelSettings(), description="Which models are served.")
    loras: LoraSettings = Field(default=LoraSettings(), description="Where LoRAs come from.")
    generation: GenerationSettings = Field(default=GenerationSettings(), description="What one job may ask for.")
    store: StoreSettings = Field(default=StoreSettings(), description="Where jobs are kept.")
    queue: QueueSettings = Field(default=QueueSettings(), description="How many jobs may wait.")
    retention: RetentionSettings = Field(default=RetentionSettings(), description="How long things are kept.")
    engine: EngineSettings = Field(default=EngineSettings(), description="The process that draws.")
    ocr: OcrSettings = Field(default=OcrSettings(), description="What reads text in pictures and PDFs.")
    access: AccessSettings = Field(default=AccessSettings(), description="Who may call.")
    http: HttpSettings = Field(default=HttpSettings(), description="What a connection may cost.")
    log: LogSettings = Field(default=LogSettings(), description="What is written to stderr.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The library's environment source would read a stray LOG or QUEUE variable as a whole section.
        return (init_settings,)

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

    def check_bind(self) -> None:
        """Raises: SettingsError when others could reach the server and no key stands in their way (S-01)."""
        if self.access.keys_file is None and not self.access.allow_open and not is_loopback(self.server.host):
            raise SettingsError(
                f"server.host {self.server.host} can be reached by others: set access.keys_file (--keys-file), "
                "or say access.allow_open: true (--allow-open)"
            )


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def keys() -> Iterator[tuple[str, str]]:
    """Every (section, key) there is."""
    for section, field in Settings.model_fields.items():
        model = field.annotation
        assert isinstance(model, type)
        assert issubclass(model, Section)
        yield from ((section, key) for key in model.model_fields)
