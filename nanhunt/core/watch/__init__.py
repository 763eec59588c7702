"""The watch over a step, and the replay of one."""
