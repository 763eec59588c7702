"""Preflight: what is worth knowing before a training goes on."""
