"""Data sets, geometry, loaders."""
