"""Binary self-supervised learning in TensorFlow: from unlabelled images to a 1-bit network on a device.

Importing this package loads no TensorFlow; `bssl_tf.backend` is the gate to it.
"""

__version__ = "0.1.0"
