"""File < environment < command line, and errors of one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import Settings, SettingsError, example_yaml, keys, load_settings
from gateway.settings.sources import ENV_NAMES

ROOT = Path(__file__).parents[2]

SEED = """
server:
  host: "0.0.0.0"
  port: 7861

models:
  default: "flux2-klein-4b"
  auto_download: true
  cache_dir: "./models"

generation:
  default_steps: 4
  max_batch_size: 4
  output_dir: "./output"
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(*argv: str, file: str | None = None, **env: str) -> Settings:
    if file is not None:
        Path("config.yaml").write_text(file)
    return load_settings(argv, env)


def refusal(*argv: str, file: str | None = None, **env: str) -> str:
    with pytest.raises(SettingsError) as refused:
        load(*argv, file=file, **env)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_settings_without_input_are_the_defaults_whatever_else_is_in_the_environment() -> None:
    assert load(LOG="x", QUEUE="{}", SERVER="1", MFLUX_API_HOST="") == Settings()


def test_settings_of_the_command_line_override_the_environment_which_overrides_the_file() -> None:
    file = "server: {port: 1, extra_ports: [11]}\nmodels: {default: flux2-tiny}\nlog: {level: error}"
    assert load(file=file).server.port == 1
    assert load(file=file, MFLUX_API_PORT="2").server.port == 2
    settings = load("--port", "3", file=file, MFLUX_API_PORT="2")
    assert settings.server.ports == (3, 11)
    assert settings.log.level == "ERROR"


def test_settings_maps_of_two_sources_are_joined_and_lists_are_not() -> None:
    file = "models: {aliases: {a: flux2-tiny, b: z-image}}\nserver: {extra_ports: [11, 12]}"
    env = {"MFLUX_GATEWAY__MODELS__ALIASES": '{"b": "flux2-tiny", "c": "z-image"}'}
    settings = load(file=file, **env, MFLUX_GATEWAY__SERVER__EXTRA_PORTS="13")
    assert settings.models.aliases == {"a": "flux2-tiny", "b": "flux2-tiny", "c": "z-image"}
    assert settings.server.extra_ports == (13,)


def test_settings_file_of_the_original_program_is_accepted_with_every_key() -> None:
    settings = load("--allow-open", file=SEED)
    assert settings.server.host == "0.0.0.0"
    assert settings.models.default == "flux2-klein-4b"
    assert settings.generation.default_steps == 4
    assert settings.generation.limits.max_count == 4


@pytest.mark.parametrize("name", ENV_NAMES)
def test_environment_variables_of_the_original_program_are_all_accepted(name: str) -> None:
    section, key = ENV_NAMES[name]
    value = {"port": "99", "host": "::1", "default": "flux2-tiny"}.get(key, "/somewhere")
    assert str(getattr(getattr(load(**{name: value}), section), key)) == value


def test_setting_of_every_key_can_be_given_in_the_environment() -> None:
    for section, key in keys():
        value = getattr(getattr(Settings(), section), key)
        raw = json.dumps(value, default=str) if not isinstance(value, str) else value
        name = f"MFLUX_GATEWAY__{section}__{key}".upper()
        assert load(**{name: raw.strip('"')}) == Settings(), name


def test_settings_lists_and_objects_in_the_environment_are_json_or_comma_separated() -> None:
    settings = load(
        MFLUX_GATEWAY__SERVER__EXTRA_PORTS="4030,4031",
        MFLUX_GATEWAY__ACCESS__ORIGINS='["https://a.example"]',
        MFLUX_GATEWAY__MODELS__ALIASES='{"flux2-klein-4b": "flux2-tiny"}',
    )
    assert settings.server.extra_ports == (4030, 4031)
    assert settings.access.origins == ("https://a.example",)
    assert settings.models.aliases == {"flux2-klein-4b": "flux2-tiny"}


def test_settings_that_people_change_have_command_line_options() -> None:
    said = (
        "--host localhost --port 1 --also-port 4030 --also-port 2 --model flux2-tiny --quantize 4 --output-dir o "
        "--models-dir m --data-dir d --backend fake --log-level debug --keys-file k"
    )
    settings = load(*said.split())
    assert settings.server.extra_ports == (4030, 2)
    assert settings.models.quantize == 4
    assert settings.engine.backend == "fake"
    assert settings.access.keys_file == Path("k")


def test_a_folder_as_model_becomes_a_local_model_named_after_it(tmp_path: Path) -> None:
    (tmp_path / "My model!").mkdir()
    models = load("--model", "./My model!", "--base-model", "flux2-klein-9b").models
    assert models.default == "My-model"
    assert models.local["My-model"].path == tmp_path / "My model!"
    assert models.local["My-model"].like == "flux2-klein-9b"
    assert load(MFLUX_DEFAULT_MODEL=str(tmp_path / "My model!")).models.local["My-model"].like is None


@pytest.mark.parametrize(
    ("file", "wrong", "near"),
    [
        ("server: {prot: 1}", "server.prot", "server.port"),
        ("sever: {port: 1}", "sever", "server"),
        ("models: {output_dir: x}", "models.output_dir", "generation.output_dir"),
        ("port: 1", "port", "server.port"),
        ("generation: {batch: 1}", "generation.batch", "generation.max_batch_size"),
        ("server: {zzzz: 1}", "server.zzzz", "server."),
        ("1: 2", "1", ""),
    ],
)
def test_setting_with_an_unknown_key_is_an_error_naming_the_nearest_key(file: str, wrong: str, near: str) -> None:
    message = refusal(file=file)
    assert message.startswith(f"config.yaml: there is no key {wrong};")
    assert near in message


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("server: {port: seven}", "config.yaml: server.port:"),
        ("server: {port: 70000}", "config.yaml: server.port:"),
        ("server: [1]", "config.yaml: server:"),
        ("models: {quantize: 7}", "config.yaml: models.quantize:"),
        ("models: {default: schnell}", "config.yaml: models.default: there is no model schnell"),
        ("models: {aliases: {a: b}}", "models.aliases.a: there is no model b"),
        ("models: {local: {a: {path: /x, like: nothing-like-it}}}", "models.local.a.like: there is no model"),
        ("models: {local: {a: {pth: /x}}}", "models.local.a"),
        ("models: {default: flux2-dev}", "config.yaml: models.default: FLUX.2-dev cannot be drawn with"),
        ("models: {hub: {a: {repo: a/b, like: flux2-dev}}}", "models.hub.a.like: FLUX.2-dev cannot be drawn with"),
        ("models: {hub: {a: {repo: ../b, like: z-image}}}", "models.hub.a.repo"),
        ('models: {hub: {a: {repo: "a/b\\n", like: z-image}}}', "models.hub.a.repo"),
        (f"models: {{fall_back_to_main: [a/{'b' * 97}]}}", "models.fall_back_to_main.0"),
        ("models: {hub: {a: {repo: a/b, like: z-image, revision: main}}}", "models.hub.a.revision"),
        ("models: {hub: {z-image: {repo: a/b, like: z-image}}}", "models.hub.z-image: there is another model"),
        (
            f"models: {{hub: {{a: {{repo: black-forest-labs/FLUX.1-schnell, like: z-image, revision: {'a' * 40}}}}}}}",
            "models.hub.a.revision: another model or LoRA takes black-forest-labs/FLUX.1-schnell at",
        ),
        (
            "loras: {hub: {a: {repo: x/y, revision: one}, b: {repo: x/y, revision: two}}}",
            "loras.hub.b.revision: another model or LoRA takes x/y at one",
        ),
        ("generation: {max_batch_size: 11}", "generation.max_batch_size"),
        ("access: {origins: [evil.example]}", "access.origins"),
        ("access: {hosts: ['http://x']}", "access.hosts"),
        ("server: {public_url: 'http://me:secret@x'}", "server.public_url"),
        ("retention: {days: .inf}", "retention.days"),
        ("a: [", "config.yaml: is not YAML in line"),
        ("hello", "config.yaml: must contain sections"),
    ],
)
def test_setting_with_a_wrong_value_is_an_error_naming_file_and_key(file: str, part: str) -> None:
    assert part in refusal(file=file)


def test_settings_error_names_the_source_of_a_wrong_value() -> None:
    assert refusal("--port", "x").startswith("command line: server.port:")
    assert refusal(MFLUX_API_PORT="x").startswith("environment: server.port:")
    assert "server.prot" in refusal(MFLUX_GATEWAY__SERVER__PROT="1")
    assert "there is no key sever" in refusal(MFLUX_GATEWAY__SEVER__PORT="1")
    assert "cannot be read" in refusal("--config", "nowhere.yaml")
    assert "--prot" in refusal("--prot", "1")
    assert "does not exist" in refusal("--model", "./nowhere")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com"])
def test_server_host_beyond_loopback_needs_a_keys_file_or_allow_open(host: str) -> None:
    """S-01."""
    assert "access.keys_file" in refusal("--host", host)
    assert load("--host", host, "--allow-open").server.host == host
    assert load("--host", host, "--keys-file", "k").server.host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_server_host_on_loopback_needs_no_key(host: str) -> None:
    """S-01."""
    load("--host", host).check_bind()


@pytest.mark.parametrize("argv", [["--host", "0.0.0.0"], ["--port", "x"], ["--wrong"]])
def test_program_with_invalid_settings_exits_with_code_2_and_one_line(argv: list[str]) -> None:
    """S-01."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "api_main.py"), *argv], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_settings_example_file_is_up_to_date() -> None:
    assert (ROOT / "config.yaml.example").read_text() == example_yaml(), (
        "python -m gateway.settings > config.yaml.example"
    )


def test_settings_example_file_has_the_defaults_and_explains_every_key() -> None:
    assert load(file=example_yaml()) == Settings()
    lines = example_yaml().splitlines()
    for _, key in keys():
        at = next(i for i, line in enumerate(lines) if line.startswith(f"  {key}: "))
        assert lines[at - 1].startswith("  # ")
        assert lines[at - 1].endswith(".")


def test_settings_cannot_be_changed() -> None:
    values: Any = Settings()
    with pytest.raises(ValueError, match="frozen"):
        values.server.port = 1
