"""Stable Diffusion 1.x, 2.x and XL in MLX, drawn as AUTOMATIC1111 draws it."""
