"""Observation: every operation of a step, with what it read and wrote."""
