"""Schedules and samplers of Stable Diffusion by A1111's names.

Schedules are computed with NumPy, in the single precision in which A1111 computes them; samplers with MLX. Samplers
treat every value of the latents alike, so they know no layout. What runs is planned by `samplers.plan_sampling`.
"""
