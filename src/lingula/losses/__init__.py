"""Losses: pure functions of tensors, in nats, one value per sample. Floor 0; every similarity is in full precision."""
