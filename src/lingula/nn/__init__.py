"""Modules with weights. Floor 1: may use floor 0 only."""
