"""The engine: watch, snapshot, replay, observe, locate. Needs torch and the standard library."""
