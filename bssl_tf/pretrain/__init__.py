"""Training without labels: methods are short recipes of networks, losses and stages; one loop runs them all.

| module | what |
|---|---|
| `moco`, `s2bnn`, `bssl` | the recipes, each on one page |
| `method` | what a recipe is |
| `stages` | which parts are binary, and when |
| `loop` | steps, metrics, checkpoints, Ctrl-C |
| `run_folder` | what a run leaves on disk |
| `commands` | what `bssl-tf teacher` and `bssl-tf pretrain` do |
"""
