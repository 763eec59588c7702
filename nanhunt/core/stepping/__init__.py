"""Stepping through training by hand: commands, breakpoints, a worker, and what is seen."""
