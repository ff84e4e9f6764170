"""Trains the embedded text-to-image model from data it renders itself."""
