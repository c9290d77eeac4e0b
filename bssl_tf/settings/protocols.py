"""Names of the protocols of `bssl-tf evaluate`; `bssl_tf.evaluation.protocols` implements them."""

# The answers of the head of a run of `bssl-tf finetune`.
FINE_TUNED = "fine-tuned"
PROTOCOLS = (
    *("knn-20", "knn-200", "linear-probe", "linear-probe-sgd", "linear-probe-held-out"),
    *("few-shot-svm", "finetune-1%", "finetune-10%", FINE_TUNED),
)
