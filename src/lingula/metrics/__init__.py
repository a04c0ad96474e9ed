"""Metrics: arrays in, numbers out. Floor 0."""
