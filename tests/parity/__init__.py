"""Ours against the reference implementations, stage by stage."""
