"""Layers: ops with parameters."""
