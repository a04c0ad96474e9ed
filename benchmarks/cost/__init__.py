"""What a training step costs, by formula, and the formulas against real steps. `python benchmarks/cost` prints all."""
