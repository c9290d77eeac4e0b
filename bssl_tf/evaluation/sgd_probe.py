"""The linear probe as the papers train it, by SGD: for figures that stand beside theirs.

`linear_probe` is the one to use otherwise: L-BFGS on the same problem, without a schedule to choose.
"""

from __future__ import annotations

import numpy as np
from sklearn.preprocessing import StandardScaler

from bssl_tf.backend import keras, tf
from bssl_tf.data.views import epoch_order, steps_per_epoch
from bssl_tf.descent import descend
from bssl_tf.errors import ConfigError, DataError
from bssl_tf.evaluation.few_shot import class_ranks
from bssl_tf.evaluation.linear_probe import for_raw_features, top1
from bssl_tf.seeding import named_seed

# The papers' 30 is for features of another scale; these are standardised.
RATES = (0.0001, 0.001, 0.01, 0.1, 1.0)
_MOMENTUM = 0.9
_BATCH = 256


def fit_sgd_probe(
    train_x: np.ndarray, train_y: np.ndarray, classes: int, *, seed: int, epochs: int = 100
) -> tuple[np.ndarray, np.ndarray]:
    """Trains a softmax classifier by SGD with momentum 0.9 and no weight decay, in batches of 256.

    The linear evaluation of S2-BNN (arXiv 2102.08946) and BSSL (arXiv 2110.08851), after MoCo (He et al., CVPR 2020,
    section 4.1): 100 epochs, the learning rate falls to a tenth at 60 and again at 80. Features are standardised first
    and the standardisation folded into the result; the learning rate is the one of `RATES` that does best on a
    held-out sixth of each class, or the middle one where no class has six images.

    Args:
        train_x: [N, D] float.
        train_y: [N] integers below `classes`.
        classes: K; classes without an image get the lowest logit.
        seed: chooses the held-out images and the order of the others.
        epochs: passes over the images; the drops keep their places as shares of it.

    Returns:
        weights float32 [D, K] and bias float32 [K].

    Raises:
        ConfigError: `epochs` is not positive.
        DataError: fewer than two classes have images.
    """
    if epochs < 1:
        raise ConfigError(f"a probe of {epochs} epochs", "Give a positive number, such as 100")
    present, y = np.unique(train_y, return_inverse=True)
    if len(present) < 2:
        raise DataError("a linear probe needs images of at least two classes", "Add labelled images of another class")
    scaler = StandardScaler().fit(train_x)
    x = scaler.transform(train_x).astype(np.float32)
    order_seed = named_seed(seed, "order")

    held = class_ranks(y, named_seed(seed, "held out")) % 6 == 5
    best = RATES[len(RATES) // 2]
    if held.any():
        best = max(
            RATES,
            key=lambda rate: top1(*_descend(x[~held], y[~held], rate, epochs, order_seed), x[held], y[held]),
        )
    kernel, offset = _descend(x, y, best, epochs, order_seed)

    return for_raw_features(kernel, offset, scaler, present, classes)


def rate_factor(epoch: int, epochs: int) -> float:
    """The learning rate's factor in `epoch`, from 0: 1, then 0.1 from 60 % of `epochs` on, and 0.01 from 80 % on."""
    return 0.1 ** ((5 * epoch >= 3 * epochs) + (5 * epoch >= 4 * epochs))


def _descend(x: np.ndarray, y: np.ndarray, rate: float, epochs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """SGD on the mean cross-entropy, from zero: x float32 [N, D], y [N] in 0 .. K - 1 to float32 [D, K] and [K]."""
    batch_size = min(_BATCH, len(x))
    per_epoch = steps_per_epoch(len(x), batch_size)
    features, labels = tf.constant(x), tf.constant(y, tf.int32)
    # The problem is convex: nothing is gained by a random start.
    kernel = tf.Variable(tf.zeros((x.shape[1], int(y.max()) + 1)))
    bias = tf.Variable(tf.zeros(kernel.shape[1]))
    optimizer = keras.optimizers.SGD(rate, momentum=_MOMENTUM)
    optimizer.build([kernel, bias])

    def objective(batch: tf.Tensor) -> tuple[tf.Tensor, tuple[()]]:
        logits = tf.matmul(tf.gather(features, batch), kernel) + bias
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.gather(labels, batch), logits)
        return tf.reduce_mean(losses), ()

    # One call for an epoch: a step takes some microseconds, a call from Python some hundred.
    @tf.function
    def run(order: tf.Tensor) -> None:
        for batch in order:
            descend(objective, (batch,), [kernel, bias], optimizer)

    for epoch in range(epochs):
        optimizer.learning_rate.assign(rate * rate_factor(epoch, epochs))
        order = epoch_order(len(x), seed, epoch)[: per_epoch * batch_size]
        run(tf.constant(order.reshape(per_epoch, batch_size)))
    return kernel.numpy(), bias.numpy()
