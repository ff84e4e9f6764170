"""The command line's client: speaks /api/v1 to a gateway over HTTP, as any other client. Knows no job and no store."""

COMMANDS = frozenset({"generate", "queue", "jobs", "cancel", "models", "loras", "doctor"})
"""Words that begin a command; anything else is for the server."""
