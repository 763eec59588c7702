"""Snapshots: what a step may change, copied, and put back."""
