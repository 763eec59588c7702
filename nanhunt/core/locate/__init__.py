"""Locating: from a bad value back to the operation that made it first."""
