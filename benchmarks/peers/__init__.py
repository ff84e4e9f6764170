"""Bench against other servers that draw with mflux: python -m benchmarks.peers --home FOLDER [--quick]

Each server has an environment of its own in the folder, with exact pins, and gets the same checkpoint: the embedded
model's weights in mflux's layout, as a FLUX.2 Klein. They are measured in turn, round by round, beside mflux alone in
a process; a table compares them. docs/benchmarks.md says how it is run, and quotes it.
"""
