"""Rewrites an inference graph so that what is constant costs nothing when it runs.

`reading` makes a `graph` of a concrete function, whatever made that (our networks, larq-zoo's, a SavedModel's), and
`writing` a SavedModel again. Between them stand the rules, each exact for real numbers, so that outputs change by
rounding only (a sign within rounding of 0 may flip: see `bssl_tf_converters.lce.parity`):

- `constants`: what depends on constants only is computed once.
- `patterns`: batch norms, biases and products, signs and PReLUs become one node each.
- `sign_thresholds`: what only signs read becomes a comparison with one number for each channel, to the bit as in Keras.
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
- A scale in front of a sign costs nothing, and its threshold one addition where the tensor is read by others too, as
  in BinaryDenseNet. Where scales of both signs meet a sign that is padded with +1, or read by something else than a
  kernel, a product stays. So does one in front of a ReLU that is not right behind a binary convolution.
- The normalisation of an image goes into the first convolution where that does not pad. Where it does, the sum stays
  on the image: padded pixels are 0 after the normalisation, and would have to be the mean before it, which TFLite's
  convolutions cannot pad with.

What is between two operators that stay is for the runtime to fuse.
"""

from __future__ import annotations

from bssl_tf_converters.lce.folding.affine_chains import (
    fold_into_kernels,
    lower_affines,
    merge_affines,
    raise_affines,
)
from bssl_tf_converters.lce.folding.constants import fold_constants
from bssl_tf_converters.lce.folding.graph import Graph
from bssl_tf_converters.lce.folding.kernel_scales import postpone_scales, pull_kernel_scales
from bssl_tf_converters.lce.folding.patterns import affines, drop_identities, recognise
from bssl_tf_converters.lce.folding.sign_thresholds import decide_signs
from bssl_tf_converters.lce.folding.stored_shifts import store_shifts

# Up to the convolutions first; only what none of them takes may go down.
_UP = (pull_kernel_scales, postpone_scales, merge_affines, raise_affines)
_DOWN = (fold_into_kernels, store_shifts, lower_affines, merge_affines)


def fold(graph: Graph) -> None:
    """Applies all rules until none finds anything."""
    drop_identities(graph)
    fold_constants(graph)
    recognise(graph)
    decide_signs(graph)
    affines(graph)
    for rules in (_UP, _DOWN):
        while any(rule(graph) for rule in rules):
            pass
    graph.sweep()


__all__ = ["fold"]
