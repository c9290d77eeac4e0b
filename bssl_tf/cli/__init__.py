"""The command line: one file for each command; it parses and prints, nothing else, and loads TensorFlow only when run."""
