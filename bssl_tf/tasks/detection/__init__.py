"""Detection: boxes around objects, each with a class.

`boxes` is how labelled boxes are held; `open` reads them, through `voc`, `coco`, `yolo` and `tfds_boxes`;
`augmentation` makes views. `network` is neck and head, `assignment` and `objective` what they learn, `evaluation` is
COCO's average precision. Decoding, which the device does, is in `bssl_tf_deploy.boxes`.
"""
