"""Training without labels: each method is a recipe of networks and losses on one page; `bssl_tf.engine` runs it."""
