"""Comparison of a program with a baseline, operation by operation."""
