"""Downloads of models and LoRAs from the hub, by a child process of their own, never in the engine.

`wire`, `fetch`, `reasons`, `child`: the request to the child, and its work. `client`, `lane`: the parent's side.
`tracker`, `holds`: which jobs wait for which downloads. `lists`: the files of LoRA collections. `sources`: the
repositories of a model.
"""
