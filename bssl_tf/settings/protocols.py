"""Names of the protocols of `bssl-tf evaluate`; `bssl_tf.evaluation.protocols` implements them."""

PROTOCOLS = (
    *("knn-20", "knn-200", "linear-probe", "linear-probe-sgd", "linear-probe-held-out"),
    *("few-shot-svm", "finetune-1%", "finetune-10%"),
)
