"""What a .tflite file holds and costs; loads no TensorFlow."""
