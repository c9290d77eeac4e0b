"""Rewrites an inference graph so that what is constant costs nothing when it runs.

`reading` makes a `graph` of a concrete function, whatever made that (our networks, larq-zoo's, a SavedModel's), and
`writing` a SavedModel again. Between them stand the rules, each exact for real numbers, so that outputs change by
rounding only (a sign within rounding of 0 may flip: see `bssl_tf_converters.parity`):

- `constants`: what depends on constants only is computed once.
- `patterns`: batch norms, biases and products, signs and PReLUs become one node each.
- `kernel_scales`: binary kernels keep their signs, and their scale goes behind the ReLU that LCE fuses.
- `affine_chains`: products and sums are merged, and go up through pools, concatenations and PReLUs to a convolution.
- `stored_shifts`: each tensor is stored with the constant added that most of its readers want.

How far this goes. A product or sum for each channel costs nothing right behind a convolution. So:

- A network of convolutions, batch norms, ReLUs right behind a binary convolution, shortcuts and thresholds keeps no
  constant operator at all, but one addition for each further threshold that the same tensor is compared with.
- ReActNet keeps for each binary convolution the addition of its shortcut, for each PReLU the PReLU, and for each sign
  behind a PReLU one constant addition: ReActNet-A 31 + 26 + 25, where it had 109 additions. Fewer is not possible with
  these operators. PReLU and sign bend at 0. A sign behind a PReLU with a threshold t bends where the PReLU's input is
  some s(t), and no tensor has both 0 and s(t) at 0. So a shift stands between the two, in front of the PReLU or behind
  it, or the shortcut is added twice; and a PReLU's output cannot be made to contain one.
- A negative scale in front of a sign stays, as one product: see `affine_chains.drop_sign_scales`. So do products and
  sums behind a max pool of which one scale is negative.
- The normalisation of an image goes into the first convolution where that does not pad. Where it does, the sum stays
  on the image: padded pixels are 0 after the normalisation, and would have to be the mean before it, which TFLite's
  convolutions cannot pad with.

What is between two operators that stay is for the runtime to fuse.
"""

from __future__ import annotations

from bssl_tf_converters.folding.affine_chains import (
    drop_sign_scales,
    fold_into_kernels,
    lower_affines,
    merge_affines,
    raise_affines,
)
from bssl_tf_converters.folding.constants import fold_constants
from bssl_tf_converters.folding.graph import Graph
from bssl_tf_converters.folding.kernel_scales import postpone_scales, pull_kernel_scales
from bssl_tf_converters.folding.patterns import drop_identities, recognise
from bssl_tf_converters.folding.stored_shifts import store_shifts

# Up to the convolutions first; only what none of them takes may go down.
_UP = (pull_kernel_scales, postpone_scales, merge_affines, raise_affines)
_DOWN = (drop_sign_scales, fold_into_kernels, store_shifts, lower_affines, merge_affines)


def fold(graph: Graph) -> None:
    """Applies all rules until none finds anything."""
    drop_identities(graph)
    fold_constants(graph)
    recognise(graph)
    for rules in (_UP, _DOWN):
        while any(rule(graph) for rule in rules):
            pass
    graph.sweep()


__all__ = ["fold"]
