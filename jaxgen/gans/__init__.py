"""Generative adversarial networks: one adversarial core, and what makes it converge."""
