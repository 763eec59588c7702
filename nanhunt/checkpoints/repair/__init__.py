"""Repairs of checkpoints and of models."""
