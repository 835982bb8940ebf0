"""Weights and checkpoints on disk: written whole or not at all, and never read when they are not what was written."""
