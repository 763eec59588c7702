"""Judging a checkpoint: what in it is bad, and how bad."""
