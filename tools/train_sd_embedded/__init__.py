"""Training of the embedded model in the shape of Stable Diffusion 1 from data that it renders itself."""
