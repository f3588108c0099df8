"""Layers with weights; nothing here knows of detection."""
