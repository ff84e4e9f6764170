"""mflux-gateway generate: submit, follow, save."""

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


def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw; - reads it from standard input.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="File to write: .png, .jpg or .webp. Several get numbers.")
    ] = Path("picture.png"),
    model: Annotated[str | None, typer.Option("-m", "--model", help="Model; the gateway's default.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What to stay away from.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Size in pixels, such as 1024x768.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps; the model's default.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How closely the prompt is followed.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first picture; random.")] = None,
    count: Annotated[int | None, typer.Option("-n", "--count", help="Pictures to draw.")] = None,
    init_image: Annotated[Path | None, typer.Option(help="Picture to draw over.")] = None,
    image_strength: Annotated[float | None, typer.Option(help="0 keeps the picture drawn over, 1 ignores it.")] = None,
    mask: Annotated[Path | None, typer.Option(help="White is repainted, black stays.")] = None,
    reference_image: Annotated[list[Path] | None, typer.Option(help="Picture to follow; repeatable.")] = None,
    lora: Annotated[list[str] | None, typer.Option(metavar="NAME[:SCALE]", help="LoRA; repeatable.")] = None,
    memory: Annotated[
        Literal["check", "try"] | None, typer.Option(help="try: draw even what seems not to fit into memory.")
    ] = None,
    priority: Annotated[
        Literal["background", "low", "normal", "high"] | None, typer.Option(help="Class in the queue.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the pictures; else print the job's id and leave.")] = True,
    force: Annotated[bool, typer.Option("-f", "--force", help="Write over files that are there.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print the names of the files only.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    config: Config = None,
) -> None:
    """Draw a picture and save it."""
    format_ = FORMATS.get(output.suffix.lower())
    if format_ is None:
        raise typer.BadParameter("must end in .png, .jpg or .webp", param_hint="--output")
    files = Files(output, format_, count or 1)
    if wait and not force:
        files.check()
    said = {
        "prompt": sys.stdin.read().strip() if prompt == "-" else prompt,
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
        **_loras(lora or ()),
    }
    with gateway(where(url, config), may_start=wait) as remote:
        body = {name: value for name, value in said.items() if value is not None}
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
            told = job["adjustments"]
            _tell_adjusted(told, quiet=quiet)
            _follow(remote, job, is_shown=not (quiet or as_json))
        job = remote.get(f"/api/v1/jobs/{job['job_id']}", images="false")
        _tell_adjusted(job["adjustments"][len(told) :], quiet=quiet)
        if not quiet and any(told["param"] == "prompt" and told["used"] is None for told in job["adjustments"]):
            _tell_what_it_draws(remote, job["model"])
        paths = files.write(remote, job["image_urls"])
        _tell(job, paths, as_json=as_json, quiet=quiet)


@dataclass(frozen=True, slots=True)
class Files:
    """Where the pictures go: `apple.png`, or `apple-1.png` and on where there are several."""

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
        """Before anything is drawn. Raises: Failure."""
        for path in self.paths:
            if path.exists():
                raise Failure(f"{path} is there already; --force writes over it.", Exit.USAGE)
        if not self.output.parent.is_dir():
            raise Failure(f"The folder {self.output.parent} does not exist.", Exit.USAGE)

    def write(self, remote: Remote, urls: Sequence[str]) -> list[Path]:
        """Raises: Failure."""
        for path, url in zip(self.paths, urls, strict=False):
            try:
                path.write_bytes(remote.picture(url, self.format_))
            except OSError as error:
                raise Failure(
                    f"{path} could not be written: {error.strerror}. The gateway keeps the picture."
                ) from None
        return self.paths[: len(urls)]


def _follow(remote: Remote, job: dict[str, Any], *, is_shown: bool) -> None:
    """Until it has ended. Raises: Failure where it did not succeed."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=err, transient=True, disable=not is_shown) as progress:
        task = progress.add_task("waiting", total=1.0, left=seconds(job["eta_seconds"]))
        is_coming = False
        for event in remote.events(job["job_id"]):
            shown = _shown(event)
            is_coming = event.name == "downloading" or (is_coming and event.name == "position")
            if is_coming:  # its place changes with every byte's forecast
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


def _tell(job: dict[str, Any], paths: Sequence[Path], *, as_json: bool, quiet: bool) -> None:
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


def _tell_adjusted(adjustments: Sequence[dict[str, Any]], *, quiet: bool) -> None:
    """What was not done as asked, to stderr; how prompts were read is known only at the end."""
    for adjustment in adjustments if not quiet else ():
        err.print(f"[yellow]{escape(_adjusted(adjustment))}[/]")


def _tell_what_it_draws(remote: Remote, model: str) -> None:
    """Of a model that draws a list of things only; and the model that fits the machine and draws more."""
    rows = remote.get("/api/v1/models")["models"]
    draws: list[str] = next((row["capabilities"]["draws"] for row in rows if row["title"] == model), [])
    if not draws:
        return
    other = remote.get("/api/v1/system")["default_model"]["any_prompt"]
    more = f" {other} draws any prompt and fits this machine: mflux-gateway models pull {other}" if other else ""
    err.print(f"{model} draws {', '.join(draws)}.{more}")


def _adjusted(adjustment: dict[str, Any]) -> str:
    used, asked = adjustment["used"], adjustment["asked"]
    instead = "" if used == asked else f"{'nothing' if used is None else used} instead of {asked}. "
    return f"{adjustment['param']}: {instead}{adjustment['reason']}"


def _sized(size: str | None) -> dict[str, int]:
    if size is None:
        return {}
    width, _, height = size.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise typer.BadParameter("must look like 1024x768", param_hint="--size")
    return {"width": int(width), "height": int(height)}


def _loras(said: Sequence[str]) -> dict[str, Any]:
    names, scales = [], []
    for text in said:
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
