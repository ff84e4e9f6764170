"""mflux-gateway doctor: what is installed, the device, what is missing and how to get it. Needs no gateway."""

from __future__ import annotations

import asyncio
import ctypes.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from engine.catalog import EMBEDDED
from engine.mlx_build import DEVICE_MEMORY
from gateway import __version__
from gateway.cli.connect import Where
from gateway.cli.failure import Exit, Failure
from gateway.cli.options import AsJson, Config, out, print_json
from gateway.cli.remote import Remote
from gateway.errors import GatewayError, StorageFault
from gateway.finding import Finding, Health
from gateway.machine import memory
from gateway.model_findings import files_at_fault
from gateway.ocr.packages import installed_at
from gateway.residency.device import expected
from gateway.settings import Settings, SettingsError

if TYPE_CHECKING:
    from gateway.files.shared import SharedFiles

SIGN: dict[Health, str] = {"ok": "[green]ok[/]", "note": "[yellow]--[/]", "broken": "[red]!![/]"}
GIB = 2**30
DEVICE = f"""
import mlx.core as mx
is_gpu = mx.default_device().type.name == "gpu"
info = mx.device_info() if is_gpu else {{}}
shares = {DEVICE_MEMORY!r}
kind = ("metal" if mx.metal.is_available() else "cuda") if is_gpu else "cpu"
print(kind, next((int(share * int(info[name])) for name, share in shares.items() if info.get(name)), 0))
"""
PROBE_S = 60


Repair = Annotated[
    bool,
    typer.Option("--repair", help="Export damaged job records to files and remove them from the database."),
]


def doctor(as_json: AsJson = False, config: Config = None, repair: Repair = False) -> None:
    """Show what is installed, the device, and what is missing or damaged."""
    findings = [*(_repaired(config) if repair else ()), *_installed(), *_of_settings(config)]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        table = Table(show_header=False, box=None)
        for finding in findings:
            remedy = f"\n[yellow]{escape(finding.remedy)}[/]" if finding.remedy else ""
            table.add_row(SIGN[finding.health], finding.what, escape(finding.found) + remedy)
        out.print(table)
    if any(finding.health == "broken" for finding in findings):
        raise typer.Exit(Exit.FAILED)


def _installed() -> Iterator[Finding]:
    yield Finding(
        "gateway", "ok", f"{__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}"
    )
    yield _package("mflux", "uv sync")
    yield _device()
    if sys.platform == "linux":
        yield _openblas()
    if installed_at() is None:
        yield Finding("OCR", "note", "rapidocr is not installed", "uv sync --group ocr")
    else:
        yield Finding("OCR", "ok", "rapidocr is installed")
    ram = memory()
    free = "" if ram.free_bytes is None else f", {ram.free_bytes / GIB:.1f} GiB of it free"
    yield Finding("memory", "ok", f"{ram.total_bytes / GIB:.1f} GiB{free}")


def _package(name: str, remedy: str) -> Finding:
    try:
        return Finding(name, "ok", version(name))
    except PackageNotFoundError:
        return Finding(name, "broken", "not installed", remedy)


def _device() -> Finding:
    """MLX and its device, from a separate process, which a broken driver may kill."""
    try:
        result = subprocess.run([sys.executable, "-c", DEVICE], capture_output=True, text=True, timeout=PROBE_S)
    except subprocess.TimeoutExpired:
        return Finding("MLX", "broken", "did not answer", "Try again; then reinstall mlx.")
    if result.returncode != 0:
        remedy = "macOS: uv sync. Linux: uv sync (CPU), or uv sync --no-group cpu --group cuda."
        return Finding("MLX", "broken", "cannot be imported", remedy)
    device, limit_text = result.stdout.split()
    slow = "" if device != "cpu" else f"Only {EMBEDDED} is fast enough on a CPU."
    limit = int(limit_text) or expected().limit_bytes
    description = f"{version('mlx')} on {device}, with {limit / 1e9:.1f} GB of memory for models and images"
    return Finding("MLX", "note" if slow else "ok", description, slow)


def _openblas() -> Finding:
    if ctypes.util.find_library("openblas"):
        return Finding("OpenBLAS", "ok", "found; the engine preloads it on a CPU")
    return Finding(
        "OpenBLAS", "note", "not found", "apt install libopenblas0-pthread: five to ten times the speed on a CPU."
    )


def _of_settings(config: Path | None) -> Iterator[Finding]:
    where = Where(os.environ.get("MFLUX_GATEWAY_URL"), config)
    try:
        settings = where.settings
    except Failure as failure:
        yield Finding("settings", "broken", str(failure))
        return
    yield Finding("settings", "ok", str(config or ("config.yaml" if Path("config.yaml").exists() else "defaults")))
    yield _keys(settings)
    yield from _models(settings)
    yield _folder("jobs", settings.store.data_dir)
    if settings.files.url is None:
        yield _folder("pictures", settings.generation.output_dir)
    yield _records(settings.store.data_dir)
    yield from _listening(where)


def _records(folder: Path) -> Finding:
    from gateway.store.base import StoreCorrupt
    from gateway.store.repair import look

    try:
        damage = look(folder)
    except StoreCorrupt as error:
        return Finding("job records", "broken", str(error))
    if not damage:
        return Finding("job records", "ok", "no damaged records")
    remedy = "Stop the gateway, then mflux-gateway doctor --repair: it exports them and removes them from the database."
    return Finding("job records", "note", "\n".join(damage), remedy)


def _repaired(config: Path | None) -> Iterator[Finding]:
    from gateway.store.base import StoreCorrupt, StoreLocked
    from gateway.store.repair import repair

    try:
        files = asyncio.run(repair(Where(None, config).settings.store.data_dir))
    except StoreLocked:
        yield Finding("repair", "broken", "a gateway is using the data folder", "Stop it first.")
    except (StoreCorrupt, Failure) as error:
        yield Finding("repair", "broken", str(error))
    except OSError as error:
        yield Finding("repair", "broken", f"the records cannot be exported: {error.strerror}")
    else:
        names = "\n".join(str(file) for file in files)
        yield Finding("repair", "ok", f"exported and removed from the database:\n{names}" if files else "nothing to do")


def _models(settings: Settings) -> Iterator[Finding]:
    from gateway.app import build_core  # takes half a second, which other commands save

    models = settings.models.model_copy(update={"hash_checkpoints": False})
    try:
        core = build_core(settings.model_copy(update={"models": models}))
    except GatewayError as error:
        yield Finding("models", "broken", error.message)
        return
    except SettingsError as error:
        yield Finding("files", "broken", str(error))
        return
    if core.shared_files is not None:
        yield _shared(core.shared_files)
    library, default = core.library, core.default_model
    library.refresh()
    here = [spec.name for spec in library.specs if library.on_disk(spec)]
    yield Finding("models", "ok", f"on disk: {', '.join(here)}")
    yield from files_at_fault(library)
    if not default.fits:
        remedy = f"{default.suggestion}." if default.instead is None else f"mflux-gateway --model {default.instead}"
        yield Finding("default model", "note", f"{default.name}. {default.sentence}", remedy)
    elif library.default in here:
        yield Finding("default model", "ok", f"{default.name}. {default.sentence}")
    else:
        description = f"{default.name} is not on disk. {default.sentence}"
        yield Finding("default model", "note", description, f"mflux-gateway models pull {default.name}")


def _shared(shared: SharedFiles) -> Finding:
    """The place that several gateways share."""
    from gateway.files.base import FilesRefused

    try:
        for files in (shared.images, shared.inputs, shared.previews):
            files.prepare()
            files.check()
    except (FilesRefused, OSError) as error:
        return Finding("files", "broken", f"files.url: {error.strerror if isinstance(error, OSError) else error}")
    except StorageFault as fault:
        return Finding("files", "broken", fault.message)
    return Finding("files", "ok", "the place at files.url takes files")


def _keys(settings: Settings) -> Finding:
    file = settings.access.keys_file
    if file is None:
        return Finding("keys", "ok", f"none; only {settings.server.host} has access")
    try:
        mode = file.stat().st_mode & 0o777
    except OSError as error:
        return Finding("keys", "broken", f"the file cannot be read: {error.strerror}")
    if mode & 0o077:
        return Finding("keys", "broken", f"others may read the file (mode {mode:o})", f"chmod 600 {file}")
    return Finding("keys", "ok", "set")


def _folder(what: str, folder: Path) -> Finding:
    """The folder, which may not exist yet, and its free space."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if not os.access(there, os.W_OK):
        return Finding(what, "broken", f"{folder} cannot be written")
    health: Health = "note" if free < 5 * GIB else "ok"
    return Finding(
        what,
        health,
        f"{folder}, {free / GIB:.0f} GiB free",
        "Free some space on this disk." if health == "note" else "",
    )


def _listening(where: Where) -> Iterator[Finding]:
    """The running gateway, and its own findings."""
    remote = Remote(where.listens_at, os.environ.get("MFLUX_GATEWAY_KEY"))
    try:
        if not remote.answers():
            yield Finding("running", "note", f"no gateway answers at {remote.url}", "mflux-gateway serve")
            return
        yield Finding("running", "ok", f"a gateway answers at {remote.url}")
        for row in remote.get("/api/v1/findings")["findings"]:
            yield Finding(**{**row, "what": f"running: {row['what']}"})
    except Failure as failure:
        yield Finding("running", "note", f"its findings cannot be read: {failure}")
    finally:
        remote.close()
