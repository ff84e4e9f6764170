"""The HTTP edge of the core: connections, bounds, metrics, OpenAPI. Knows no protocol."""
