"""The embedded model, which ships with the gateway, and the parts of its prompts that users do not write."""
