"""Pixels: the one place where files are opened."""
