"""Clustering, principal components and non-negative factors: closed forms over the rows of a table."""
