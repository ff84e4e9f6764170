"""Settings from file < environment < command line. Knows no HTTP, no store, no engine process.

An error is one sentence that names the source of the wrong key or value and, for a key, the most similar one.
"""

from gateway.settings.example import example_yaml
from gateway.settings.model import (
    AccessSettings,
    EngineSettings,
    FilesSettings,
    GenerationSettings,
    HttpSettings,
    LocalModel,
    LogSettings,
    ModelSettings,
    QueueSettings,
    RetentionSettings,
    ServerSettings,
    Settings,
    SettingsError,
    StoreSettings,
    is_loopback,
    keys,
)
from gateway.settings.sources import load_settings

__all__ = [
    "AccessSettings",
    "EngineSettings",
    "FilesSettings",
    "GenerationSettings",
    "HttpSettings",
    "LocalModel",
    "LogSettings",
    "ModelSettings",
    "QueueSettings",
    "RetentionSettings",
    "ServerSettings",
    "Settings",
    "SettingsError",
    "StoreSettings",
    "example_yaml",
    "is_loopback",
    "keys",
    "load_settings",
]
