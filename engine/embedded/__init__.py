"""The model that ships with the gateway, and what its prompts say that people don't."""
