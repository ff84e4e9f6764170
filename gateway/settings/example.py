"""Generator of config.yaml.example from the settings."""

from __future__ import annotations

import json
from pathlib import Path

from gateway.settings.model import Settings, fields_of


def example_yaml() -> str:
    """`config.yaml.example`: every key with its default and its description."""
    lines = [
        "# All settings with their defaults. Copy to config.yaml and keep only the lines that you change.",
        "# Environment variables (MFLUX_GATEWAY__SECTION__KEY) override the file, the command line overrides both.",
    ]
    for section, field in Settings.model_fields.items():
        lines += ["", f"# {field.description}", f"{section}:"]
        for key, inner in fields_of(section).items():
            lines += [f"  # {inner.description}", f"  {key}: {_yaml(inner.default)}"]
    return "\n".join(lines) + "\n"


def _yaml(value: object) -> str:
    if isinstance(value, Path):
        return json.dumps(f"./{value}")
    return json.dumps(value)
