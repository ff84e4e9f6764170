"""mflux-gateway generate: submit a job, follow its progress, save its images."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from gateway.cli.connect import gateway
from gateway.cli.failure import Exit, Failure
from gateway.cli.interrupts import submitted
from gateway.cli.options import AsJson, Config, Url, err, out, print_json, where
from gateway.cli.remote import Event, Remote
from gateway.cli.words import clipped, seconds

FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
PIPE = Path("-")


def generate(
    prompt: Annotated[str, typer.Argument(help="Prompt; - reads it from standard input.")],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="File to write: .png, .jpg or .webp. Several images get numbers. - is standard output.",
        ),
    ] = Path("picture.png"),
    model: Annotated[str | None, typer.Option("-m", "--model", help="Model (default: the gateway's).")] = None,
    negative_prompt: Annotated[
        str | None, typer.Option("--negative-prompt", "--negative", help="What to avoid in the image.")
    ] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Size in pixels, such as 1024x768.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps (default: the model's).")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance: how closely the image follows the prompt.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first image (default: random).")] = None,
    count: Annotated[int | None, typer.Option("-n", "--count", help="Number of images.")] = None,
    init_image: Annotated[Path | None, typer.Option(help="Image to start from.")] = None,
    image_strength: Annotated[float | None, typer.Option(help="0 keeps the image to start from, 1 ignores it.")] = None,
    mask: Annotated[Path | None, typer.Option(help="Mask: white is repainted, black stays.")] = None,
    reference_image: Annotated[list[Path] | None, typer.Option(help="Reference image; repeatable.")] = None,
    sampler: Annotated[str | None, typer.Option(help="Sampler of Stable Diffusion, such as 'DPM++ 2M Karras'.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Schedule of Stable Diffusion, such as Karras.")] = None,
    clip_skip: Annotated[int | None, typer.Option(help="Clip skip of Stable Diffusion 1: 1 to 12.")] = None,
    lora: Annotated[list[str] | None, typer.Option(metavar="NAME[:SCALE]", help="LoRA; repeatable.")] = None,
    memory: Annotated[
        Literal["check", "try"] | None, typer.Option(help="try: run even if it seems not to fit into memory.")
    ] = None,
    priority: Annotated[
        Literal["background", "low", "normal", "high"] | None, typer.Option(help="Priority in the queue.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the images; otherwise print the job's id and exit.")] = True,
    force: Annotated[bool, typer.Option("-f", "--force", help="Overwrite existing files.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print only the names of the files.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    config: Config = None,
) -> None:
    """Generate an image and save it."""
    is_piped = output == PIPE
    format_ = "png" if is_piped else FORMATS.get(output.suffix.lower())
    if is_piped:
        _check_pipe(count or 1, wait=wait, as_json=as_json)
    if format_ is None:
        raise typer.BadParameter("must end in .png, .jpg or .webp", param_hint="--output")
    text = sys.stdin.read().strip() if prompt == "-" else prompt
    if not text.strip():
        raise typer.BadParameter("must not be empty", param_hint="prompt")
    files = Files(output, format_, count or 1)
    if wait and not force and not is_piped:
        files.check()
    fields = {
        "prompt": text,
        "model": model,
        "negative_prompt": negative_prompt,
        **_sized(size),
        "steps": steps,
        "guidance": guidance,
        "seed": seed,
        "num_images": count,
        "image_strength": image_strength,
        "memory": memory,
        "priority": priority,
        "sampler": sampler,
        "scheduler": scheduler,
        "sampling": None if clip_skip is None else {"clip_skip": clip_skip},
        **_loras(lora or ()),
    }
    with gateway(where(url, config), may_start=wait) as remote:
        body = {name: value for name, value in fields.items() if value is not None}
        if init_image:
            body["init_images"] = [remote.upload(_read(init_image))]
        if mask:
            body["mask"] = remote.upload(_read(mask))
        if reference_image:
            body["reference_images"] = [remote.upload(_read(path)) for path in reference_image]

        def cancelled(job: dict[str, Any]) -> Failure:
            remote.delete(f"/api/v1/jobs/{job['job_id']}")
            return Failure("Cancelled.", Exit.INTERRUPTED)

        with submitted(remote, "/api/v1/generate", body, cancelled) as job:
            if not wait:
                print_json(job) if as_json else print(job["job_id"])
                return
            adjustments = job["adjustments"]
            _print_adjustments(adjustments, quiet=quiet)
            _follow(remote, job, is_shown=not (quiet or as_json))
        job = remote.get(f"/api/v1/jobs/{job['job_id']}", images="false")
        _print_adjustments(job["adjustments"][len(adjustments) :], quiet=quiet)
        if not quiet and any(one["param"] == "prompt" and one["used"] is None for one in job["adjustments"]):
            _print_abilities(remote, job["model"])
        if is_piped:
            sys.stdout.buffer.write(remote.image(job["image_urls"][0], format_))
            return
        paths = files.write(remote, job["image_urls"])
        _print_result(job, paths, as_json=as_json, quiet=quiet)


def _check_pipe(count: int, *, wait: bool, as_json: bool) -> None:
    """Whether one image can be written to standard output. Raises: typer.BadParameter."""
    if count > 1 or not wait or as_json:
        raise typer.BadParameter("- takes one image, without --json and --no-wait", param_hint="--output")
    if sys.stdout.isatty():
        raise typer.BadParameter(
            "- writes the bytes of an image: send them to a file or a program", param_hint="--output"
        )


@dataclass(frozen=True, slots=True)
class Files:
    """Files of the images: `apple.png`, or `apple-1.png` and so on if there are several."""

    output: Path
    format_: str
    count: int

    @property
    def paths(self) -> list[Path]:
        stem, suffix = self.output.stem, self.output.suffix
        if self.count == 1:
            return [self.output]
        return [self.output.with_name(f"{stem}-{number}{suffix}") for number in range(1, self.count + 1)]

    def check(self) -> None:
        """Check the files before the job. Raises: Failure."""
        for path in self.paths:
            if path.exists():
                raise Failure(f"{path} already exists; --force overwrites it.", Exit.USAGE)
        if not self.output.parent.is_dir():
            raise Failure(f"The folder {self.output.parent} does not exist.", Exit.USAGE)

    def write(self, remote: Remote, urls: Sequence[str]) -> list[Path]:
        """Write the images; returns their files. Raises: Failure."""
        for path, url in zip(self.paths, urls, strict=False):
            try:
                path.write_bytes(remote.image(url, self.format_))
            except OSError as error:
                raise Failure(
                    f"{path} could not be written: {error.strerror}. The gateway still has the image."
                ) from None
        return self.paths[: len(urls)]


def _follow(remote: Remote, job: dict[str, Any], *, is_shown: bool) -> None:
    """Show a job's progress until it has ended. Raises: Failure if it did not succeed."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=err, transient=True, disable=not is_shown) as progress:
        task = progress.add_task("waiting", total=1.0, left=seconds(job["eta_seconds"]))
        is_downloading = False
        for event in remote.events(job["job_id"]):
            shown = _shown(event)
            is_downloading = event.name == "downloading" or (is_downloading and event.name == "position")
            if is_downloading:  # position events keep coming during a download
                shown["description"] = "downloading the model"
            progress.update(task, **shown)
            _check(event)


def _shown(event: Event) -> dict[str, Any]:
    data = event.data
    match event.name:
        case "position":
            place = data["position"]
            before = "next" if place == 0 else f"{place} before it"
            return {"description": f"waiting, {before}", "left": seconds(data.get("eta_seconds"))}
        case "downloading":
            left = seconds(data["eta_seconds"])
            return {"completed": data["percent"] / 100, "left": left}
        case "loading" | "progress":
            phase = str(data.get("phase") or event.name)
            step = f" {data['step']}/{data['steps']}" if phase == "denoising" else ""
            done = float(data.get("progress") or 0.0)
            return {"description": phase + step, "completed": done, "left": seconds(data.get("eta_seconds"))}
        case "complete":
            return {"description": "done", "completed": 1.0, "left": ""}
        case _:
            return {}


def _check(event: Event) -> None:
    if event.name == "error":
        raise Failure(str(event.data["error"]))
    if event.name == "cancelled":
        raise Failure("The job was cancelled.", Exit.CANCELLED)


def _print_result(job: dict[str, Any], paths: Sequence[Path], *, as_json: bool, quiet: bool) -> None:
    if as_json:
        print_json({**job, "files": [str(path) for path in paths]})
        return
    if quiet:
        for path in paths:
            print(path)
        return
    took = seconds(job["seconds"])
    for path, seed in zip(paths, job["seeds"], strict=False):
        out.print(f"[bold]{escape(str(path))}[/]  {job['width']}x{job['height']}, seed {seed}")
    out.print(f"[dim]{clipped(job['model'])}, {job['steps']} steps, {took}[/]")


def _print_adjustments(adjustments: Sequence[dict[str, Any]], *, quiet: bool) -> None:
    """Print adjustments to stderr; those of prompts are known only at the end."""
    for adjustment in adjustments if not quiet else ():
        err.print(f"[yellow]{escape(_adjusted(adjustment))}[/]")


def _print_abilities(remote: Remote, model: str) -> None:
    """Print what a model with a fixed list of things can draw, and the best fitting model that draws more."""
    rows = remote.get("/api/v1/models")["models"]
    draws: list[str] = next((row["capabilities"]["draws"] for row in rows if row["title"] == model), [])
    if not draws:
        return
    other = remote.get("/api/v1/system")["default_model"]["any_prompt"]
    more = f" {other} draws any prompt and fits this machine: mflux-gateway models pull {other}" if other else ""
    err.print(f"{model} draws {', '.join(draws)}.{more}")


def _adjusted(adjustment: dict[str, Any]) -> str:
    used, requested = adjustment["used"], adjustment["asked"]
    instead = "" if used == requested else f"{'nothing' if used is None else used} instead of {requested}. "
    return f"{adjustment['param']}: {instead}{adjustment['reason']}"


def _sized(size: str | None) -> dict[str, int]:
    if size is None:
        return {}
    width, _, height = size.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise typer.BadParameter("must look like 1024x768", param_hint="--size")
    return {"width": int(width), "height": int(height)}


def _loras(options: Sequence[str]) -> dict[str, Any]:
    names, scales = [], []
    for text in options:
        name, colon, scale = text.rpartition(":")
        try:
            names.append(name if colon else text)
            scales.append(float(scale) if colon else 1.0)
        except ValueError:
            raise typer.BadParameter("must look like NAME or NAME:0.8", param_hint="--lora") from None
    return {"lora_files": names, "lora_scales": scales} if names else {}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}", Exit.USAGE) from None
