"""Guards training loops that must go on: bad steps are undone, counted and kept for a hunt."""
