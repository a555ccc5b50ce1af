"""Measures over samples: distances of features, neighbours, labels, and the networks that read them."""
