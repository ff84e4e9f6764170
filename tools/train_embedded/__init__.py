"""Training of the embedded text-to-image model from data that it renders itself."""
