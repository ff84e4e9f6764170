"""Lanes: what claims jobs and has them done, one after the other."""
