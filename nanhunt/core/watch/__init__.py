"""Watches a step for values that are not finite, and replays it."""
