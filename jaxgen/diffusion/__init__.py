"""Diffusion models: schedules, objective, samplers."""
