"""Codes of images: autoencoders and what their encoders know of the data's manifold."""
