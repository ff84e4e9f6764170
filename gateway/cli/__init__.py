"""Command line client: uses a gateway's /api/v1 over HTTP, like any other client. Knows no store."""
