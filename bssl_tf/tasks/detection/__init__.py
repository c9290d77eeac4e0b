"""Detection: boxes around objects, each with a class.

`network` is neck and head, `assignment` and `objective` what they learn. Decoding, which the device does, is in
`bssl_tf_deploy.boxes`.
"""
