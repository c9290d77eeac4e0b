"""Networks: one backbone a file, projection heads, quantisers switched on and off, saving and loading.

A backbone is a Keras functional model from images [B, S, S, C] float32 to pooled features [B, D] float32.
"""
