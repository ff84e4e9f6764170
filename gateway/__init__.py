"""The core: jobs, their order, their store and their life. Knows no protocol; only app.py and access.py know HTTP."""

__version__ = "0.1.0"
