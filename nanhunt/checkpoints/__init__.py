"""Checkpoints: the doctor, who examines and repairs files of weights."""
