"""The MLX side: what the gateway may know of it (protocol, catalog, client) and the child process itself."""
