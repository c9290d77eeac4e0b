"""Training without labels: each method is a recipe on one page, which declares everything else about itself.

| module | what |
|---|---|
| `method` | how a method declares itself |
| `recipe` | what it does in a stage: networks, losses, what happens after a step |
| `registry` | methods by name, of this package and of others; what a run is made of |
| `s2bnn`, `bssl`, `moco`, `byol`, `swav`, `supervised` | the methods |
| `momentum` | moving averages of networks, which several share |

To add one, write two files: a loss, a pure function of tensors as in `bssl_tf.losses`, and a module with the settings'
dataclass, the recipe and `METHOD`, the declaration. Name it in `registry.BUILT_IN`, or, in a package of your own, in an
entry point of the group `bssl_tf.methods`; `tests/methods/package/toy` is an example. `bssl_tf.engine` runs it.
"""
