"""The benchmark of training: `PYTHONPATH=deploy python -m benchmarks.training --help`.

This project's training step next to the same one in plain PyTorch, which runs in an environment of its own: random
views, a frozen teacher, the student, S2-BNN's loss, gradients, Adam. `cases` names what is measured. `ours` and
`pytorch` are the two sides, each in a process of its own, which speaks to this one by the lines of `worker`;
`networks`, `views` and `weights` belong to PyTorch's side. `session` compares the two sides' results and measures them
interleaved.
"""
