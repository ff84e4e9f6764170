"""The MLX side of the project: what the gateway uses of it (protocol, catalog, client) and the child process itself."""
