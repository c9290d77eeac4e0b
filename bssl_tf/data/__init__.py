"""Data: image sets read at random access, preprocessing, augmentation and the pipeline of views.

Importing this package, `load`, `image_set` or `preprocessing` loads no TensorFlow; `augmentation` and `views` do.
"""
