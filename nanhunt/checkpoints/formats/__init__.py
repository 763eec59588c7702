"""Formats of checkpoint files, opened without running what is in them."""
