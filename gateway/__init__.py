"""The core: jobs, their queue, their store and their lifecycle. Knows no protocol."""

__version__ = "0.1.0"
