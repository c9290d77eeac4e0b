"""`python -m bssl_tf` is `bssl-tf`."""

from bssl_tf.cli.main import main

main()
