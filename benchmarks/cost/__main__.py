"""The tables of docs/scale.md: the formulas against real steps, then time, price and room. Five minutes on one core."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.cost import check, plan  # noqa: E402

for text in (*check.tables(), *plan.tables()):
    print(text, end="\n\n", flush=True)
