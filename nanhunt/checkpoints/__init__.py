"""Reads, judges and repairs checkpoints (files of weights); `nanhunt.doctor` stands here."""
