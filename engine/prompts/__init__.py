"""The prompt language of AUTOMATIC1111: weights, chunks, BREAK, AND, prompt editing, alternation, textual inversions.

Pure Python, no MLX: the gateway checks prompts with it, and the pipelines of Stable Diffusion encode what it returns.
Every function takes time linear in the length of its text, or nearly, however the text is made, and none recurses.

Source: A1111 1.10.1 modules/prompt_parser.py, sd_hijack_clip.py, textual_inversion/textual_inversion.py.
"""
