"""Remedies proven by replay: each changes one thing above autograd and runs the step once more."""
