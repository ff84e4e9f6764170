"""What the pipelines of several families share. Knows no family."""
