"""The benchmark of the device runtime: `PYTHONPATH=deploy python -m benchmarks --help`.

A tool for development, not installed on devices: it makes its networks with TensorFlow, larq and larq-zoo and compares
with Larq Compute Engine (LCE). `networks` names what is timed, `conversion` makes the models, `variants` opens them in
their interpreters, `timing` times them interleaved, `probe` looks at one in a fresh process, `worker` is what such a
process runs, `records` and `report` show what came out. `training` is another benchmark, of training.
"""
