"""Tensors: numbers taken from tensors, and the memory they stand in."""
