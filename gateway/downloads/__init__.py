"""Models and LoRAs that come from the hub: fetched by a child of their own, beside the queue and never in the engine.

`wire`, `fetch`, `reasons`, `child`: what the child is told and does. `client`, `lane`: how it is run. `coming`, `held`:
which jobs wait for what. `lists`: what LoRA collections have. `sources`: what a model is made of. `folders`: where
models lie, whole or in part.
"""
