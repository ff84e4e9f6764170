"""Proof of a fleet: gateways and workers as real processes on one PostgreSQL, with faults made on purpose."""
