"""Normalizing flows: likelihoods by the change of variables."""
