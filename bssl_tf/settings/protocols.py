"""Names of the protocols that `bssl-tf evaluate` knows; `bssl_tf.evaluation.protocols` measures by them."""

PROTOCOLS = (
    *("knn-20", "knn-200", "linear-probe", "linear-probe-sgd", "linear-probe-held-out"),
    *("few-shot-svm", "finetune-1%", "finetune-10%"),
)
