"""Models and LoRAs on this machine: files, names, layouts. Knows no MLX."""
