"""Command line client: uses a gateway's /api/v1 over HTTP, like any other client. Knows no store."""

COMMANDS = frozenset({"generate", "queue", "jobs", "cancel", "models", "loras", "doctor", "worker", "workers"})
"""The first words of commands; all other arguments are for the server."""
