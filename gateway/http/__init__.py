"""HTTP: connections, bounds, metrics, OpenAPI. Knows no protocol."""
