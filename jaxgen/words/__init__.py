"""Vectors of words and documents: word2vec, doc2vec, and the baselines they are measured by."""
