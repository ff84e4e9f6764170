"""What backends and pipelines share: the interface of a backend, and how images are fitted to a plan."""
