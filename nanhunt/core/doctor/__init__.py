"""The doctor: reads checkpoints of every format, judges them, and repairs copies of them."""
