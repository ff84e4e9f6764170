"""Code that the pipelines of several families share. It knows no family."""
