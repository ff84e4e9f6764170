"""The networks of Stable Diffusion: UNet, CLIP's text encoder, VAE.

Parameters have the names of diffusers and transformers. Images are (batch, height, width, channels), and 1x1
convolutions are linear layers.
"""
