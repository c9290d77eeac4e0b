"""One loss a file: a pure function of tensors that knows no network. Each returns the mean over the batch."""
