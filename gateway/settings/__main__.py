"""python -m gateway.settings > config.yaml.example"""

from gateway.settings.example import example_yaml

print(example_yaml(), end="")
