"""Guards for training loops that others have written; each module needs its own library."""
