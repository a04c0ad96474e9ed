"""Figures: one file, one figure. They take numbers and arrays, and return what can be drawn. Floor 3."""
