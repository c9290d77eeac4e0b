"""Float teachers: trained here by `bssl-tf teacher`, or any saved Keras model."""
