"""How good the features are: k-nearest neighbours and a linear probe, beside controls."""
