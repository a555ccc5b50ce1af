"""How good samples are: distances, image statistics, labels, and paired comparisons, over plain arrays."""
