"""Checkpoints of Stable Diffusion: what a file or a diffusers folder holds, by names, shapes and configurations.

Reads headers, configurations and single small tensors; imports neither MLX nor PyTorch. The gateway imports it, too.
"""
