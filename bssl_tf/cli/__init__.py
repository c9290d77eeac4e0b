"""The command line: one file per command; it parses and prints, nothing else, and loads TensorFlow only when run."""
