"""Sources of settings: file < environment < command line; errors in one line."""

from __future__ import annotations

import argparse
import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from engine.catalog import CATALOG
from gateway import __version__
from gateway.fleet.node import NodeKind
from gateway.settings.checks import clip
from gateway.settings.model import Settings, SettingsError, fields_of, keys

ENV_PREFIX = "MFLUX_GATEWAY__"
ENV_NAMES = {
    "MFLUX_API_HOST": ("server", "host"),
    "MFLUX_API_PORT": ("server", "port"),
    "MFLUX_DEFAULT_MODEL": ("models", "default"),
    "MFLUX_OUTPUT_DIR": ("generation", "output_dir"),
    "MFLUX_MODELS_DIR": ("models", "cache_dir"),
}
"""Names of environment variables from older deployments, besides MFLUX_GATEWAY__SECTION__KEY."""

DEFAULT_FILE = Path("config.yaml")
PASSWORD = re.compile(r"//[^@/]*@")
"""User and password in an address."""


def load_settings(argv: Sequence[str], env: Mapping[str, str], kind: NodeKind = "gateway") -> Settings:
    """The settings of this start: `config.yaml` or --config, then `env`, then `argv` (without the program's name).

    Raises: SettingsError. SystemExit(0) for --help and --version.
    """
    arguments = (_parser() if kind == "gateway" else _worker_parser()).parse_args(list(argv))
    path = arguments.config or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)
    layers = {
        "command line": _from_arguments(arguments),
        "environment": _from_environment(env),
        str(path): _from_file(path) if path else {},
    }
    for source, layer in layers.items():
        _refuse_unknown(layer, source)
    try:
        # Each section is given, if empty: pydantic would build the schema of each default by itself.
        settings = Settings.model_validate(
            _merged((*layers.values(), {section: {} for section in Settings.model_fields}))
        )
    except ValidationError as error:
        raise SettingsError("; ".join(_sentence(line, layers) for line in error.errors())) from None
    if kind == "gateway":
        settings.check_bind()
        settings.check_lanes()
    else:
        settings.check_worker()
    return settings


def _merged(layers: Iterable[Mapping[Any, Any]]) -> dict[Any, Any]:
    """One mapping of all layers, section by section and key by key; of equal keys the first layer's counts."""
    merged: dict[Any, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            above = merged.setdefault(key, value)
            if isinstance(above, Mapping) and isinstance(value, Mapping):
                merged[key] = _merged((above, value))
    return merged


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message} (see --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mflux-gateway",
        description="One address for every image client. Options that are not given come from the environment, "
        "then from config.yaml, then from the defaults in config.yaml.example.",
        epilog="Commands: serve (this one), worker, generate, queue, jobs, cancel, models, loras, doctor. "
        "mflux-gateway COMMAND --help shows their options; --install-completion adds them to your shell.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--host", help="address to listen on (default: 127.0.0.1)")
    add("--port", help="port to listen on (default: 7861)")
    add("--also-port", action="append", metavar="PORT", help="another port for the same server; repeatable")
    add("--model", metavar="NAME|FOLDER", help="default model: a name, a folder of weights, or a checkpoint's file")
    add(
        "--base-model",
        metavar="NAME",
        help="model with the architecture of --model FOLDER (default: detected from the folder)",
    )
    add("--quantize", metavar="BITS", help="bits to quantise models to at load: 3, 4, 5, 6 or 8")
    add("--config", type=Path, metavar="FILE", help="settings file (default: ./config.yaml if it exists)")
    add("--output-dir", metavar="FOLDER", help="folder for images (default: ./output)")
    add("--models-dir", metavar="FOLDER", help="folder for models (default: ./models)")
    add(
        "--a1111-dir", metavar="FOLDER", help="folder of AUTOMATIC1111, to use its checkpoints, VAEs, LoRAs, embeddings"
    )
    add("--data-dir", metavar="FOLDER", help="folder for the job database (default: ./data)")
    add("--store", metavar="URL", help="job store of several gateways and workers, postgresql://... (default: SQLite)")
    add("--files", metavar="URL", help="where images and inputs are kept: a folder, or s3://bucket/prefix")
    add("--backend", help="mlx, or fake for developing clients without a model")
    add("--log-level", metavar="LEVEL", help="DEBUG, INFO, WARNING or ERROR")
    add("--allow-open", action="store_true", default=None, help="allow other machines to connect without a key")
    add("--keys-file", metavar="FILE", help='file with a line "name key" for each client, mode 0600')
    add("--version", action="version", version=f"mflux-gateway {__version__}")
    return parser


def _worker_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mflux-gateway worker",
        description="Run jobs of a queue that gateways fill, without any port of its own. Options that are not given "
        "come from the environment, then from config.yaml, then from the defaults in config.yaml.example.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--store", metavar="URL", help="address of the job store, postgresql://user@host/database")
    add("--files", metavar="URL", help="where images and inputs are kept: a folder, or s3://bucket/prefix")
    add("--name", help="name of this worker (default: the host's name)")
    add("--lanes", metavar="NAMES", help="what it runs, of engine,ocr,network (default: all)")
    add("--label", action="append", metavar="NAME=TEXT", help="a label in lists of workers; repeatable")
    add("--memory-gb", metavar="GB", help="memory for models and images (default: what the device has)")
    add("--models-dir", metavar="FOLDER", help="folder for models (default: ./models)")
    add(
        "--a1111-dir", metavar="FOLDER", help="folder of AUTOMATIC1111, to use its checkpoints, VAEs, LoRAs, embeddings"
    )
    add("--output-dir", metavar="FOLDER", help="folder for images that the gateways read, too (default: ./output)")
    add("--data-dir", metavar="FOLDER", help="folder for temporary files (default: ./data)")
    add("--quantize", metavar="BITS", help="bits to quantise models to at load: 3, 4, 5, 6 or 8")
    add("--config", type=Path, metavar="FILE", help="settings file (default: ./config.yaml if it exists)")
    add("--backend", help="mlx, or fake for developing clients without a model")
    add("--log-level", metavar="LEVEL", help="DEBUG, INFO, WARNING or ERROR")
    add("--version", action="version", version=f"mflux-gateway {__version__}")
    return parser


_ARGUMENTS = {
    "host": ("server", "host"),
    "port": ("server", "port"),
    "also_port": ("server", "extra_ports"),
    "quantize": ("models", "quantize"),
    "output_dir": ("generation", "output_dir"),
    "models_dir": ("models", "cache_dir"),
    "a1111_dir": ("models", "a1111_dir"),
    "data_dir": ("store", "data_dir"),
    "backend": ("engine", "backend"),
    "log_level": ("log", "level"),
    "allow_open": ("access", "allow_open"),
    "keys_file": ("access", "keys_file"),
    "store": ("store", "url"),
    "files": ("files", "url"),
    "name": ("worker", "name"),
    "memory_gb": ("engine", "memory_gb"),
}


def _from_arguments(arguments: argparse.Namespace) -> dict[str, Any]:
    layer: dict[str, Any] = {}
    for name, (section, key) in _ARGUMENTS.items():
        value = getattr(arguments, name, None)
        if value is not None:
            layer.setdefault(section, {})[key] = value
    if getattr(arguments, "lanes", None) is not None:
        lanes = [name.strip() for name in arguments.lanes.split(",")]
        layer.setdefault("worker", {})["lanes"] = [name for name in lanes if name]
    if getattr(arguments, "label", None) is not None:
        layer.setdefault("worker", {})["labels"] = dict(_label(text) for text in arguments.label)
    model, like = getattr(arguments, "model", None), getattr(arguments, "base_model", None)
    if model is not None:
        layer.setdefault("models", {}).update(_default_model(model, like))
    elif like is not None:
        raise SettingsError("--base-model needs --model FOLDER")
    return layer


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise SettingsError(f"--label {clip(text)} must look like name=text")
    return name, value


def _default_model(name_or_folder: str, like: str | None) -> dict[str, Any]:
    """The default model: a name as it is, a folder as a local model named after it."""
    if any(spec.name == name_or_folder for spec in CATALOG):
        return {"default": name_or_folder}
    if not (name_or_folder.startswith((".", "/", "~", "\\")) or Path(name_or_folder).is_dir()):
        return {"default": name_or_folder}
    folder = Path(name_or_folder).expanduser().absolute()
    if not folder.exists():
        raise SettingsError(f"the model folder {clip(name_or_folder)} does not exist")
    stem = folder.resolve().name.removesuffix(".safetensors")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-")[:64] or "local"
    return {"default": name, "local": {name: {"path": str(folder), "like": like}}}


def _from_environment(env: Mapping[str, str]) -> dict[str, Any]:
    layer: dict[str, Any] = {}
    for name, raw in env.items():
        if not raw:  # compose files pass unset variables as empty ones
            continue
        if name == "MFLUX_DEFAULT_MODEL":
            layer.setdefault("models", {}).update(_default_model(raw, None))
        elif name in ENV_NAMES:
            section, key = ENV_NAMES[name]
            layer.setdefault(section, {})[key] = raw
        elif name.upper().startswith(ENV_PREFIX):
            parts = name[len(ENV_PREFIX) :].lower().split("__")
            if len(parts) != 2:
                raise SettingsError(f"environment: {name} must be {ENV_PREFIX}SECTION__KEY")
            layer.setdefault(parts[0], {})[parts[1]] = _from_text(parts[0], parts[1], raw)
    return layer


def _from_text(section: str, key: str, raw: str) -> Any:
    """The value: a list or an object from JSON, a list also from a,b,c; other text is left to the model."""
    if raw[0] in "[{":
        try:
            return json.loads(raw)
        except json.JSONDecodeError:
            return raw
    if key in _lists(section):
        return [part.strip() for part in raw.split(",")]
    return None if raw == "null" else raw


def _lists(section: str) -> set[str]:
    fields = fields_of(section) if section in Settings.model_fields else {}
    return {key for key, field in fields.items() if isinstance(field.default, tuple)}


def _from_file(path: Path) -> dict[str, Any]:
    try:
        text = path.expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise SettingsError(f"{path}: cannot be read: {reason}") from None
    import yaml  # takes 50 ms, which a start without a file saves

    try:
        layer = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or "cannot be read"
        raise SettingsError(f"{path}: is not YAML{where}: {what}") from None
    if layer is None:
        return {}
    if not isinstance(layer, dict):
        raise SettingsError(f"{path}: must contain sections such as server: and models:")
    return {key: {} if value is None and key in Settings.model_fields else value for key, value in layer.items()}


def _refuse_unknown(layer: Mapping[Any, Any], source: str) -> None:
    known = {f"{section}.{key}" for section, key in keys()}
    for section, values in layer.items():
        if section not in Settings.model_fields:
            raise SettingsError(_unknown(str(section), source, [*Settings.model_fields, *known]))
        if isinstance(values, Mapping):
            for key in values:
                if f"{section}.{key}" not in known:
                    raise SettingsError(_unknown(f"{section}.{key}", source, sorted(known)))


def _unknown(key: str, source: str, known: Sequence[str]) -> str:
    section, _, leaf = key.rpartition(".")
    here = [name for name in known if section and name.startswith(section + ".")]
    by_leaf = {name.rpartition(".")[2]: name for name in known}
    near = (
        difflib.get_close_matches(key, here, n=1, cutoff=0.7)
        or [by_leaf[match] for match in difflib.get_close_matches(leaf, list(by_leaf), n=1, cutoff=0.6)]
        or difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    )
    return f"{source}: there is no key {clip(key)}; the most similar one is {near[0]}"


def _sentence(error: Mapping[str, Any], layers: Mapping[str, dict[str, Any]]) -> str:
    loc = tuple(error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    if not loc:  # a check of several keys; its message begins with the key at fault
        loc = tuple(message.partition(":")[0].split("."))
        return f"{_source(layers, loc)}: {message}"
    given = None if loc[0] == "files" else error.get("input")  # it may be, or contain, a key
    given = PASSWORD.sub("//...@", given) if isinstance(given, str) else given
    value = f" (it is {clip(repr(given))})" if isinstance(given, str | int | float | bool) else ""
    return f"{_source(layers, loc)}: {'.'.join(map(str, loc))}: {message[0].lower()}{message[1:]}{value}"


def _source(layers: Mapping[str, dict[str, Any]], loc: tuple[int | str, ...]) -> str:
    return next((name for name, layer in layers.items() if _holds(layer, loc)), "settings")


def _holds(layer: Any, loc: tuple[int | str, ...]) -> bool:
    for part in loc[:2]:
        if not isinstance(layer, Mapping) or part not in layer:
            return False
        layer = layer[part]
    return True
