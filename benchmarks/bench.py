"""`make bench`: every ratio of benchmarks/ratios in one run, and a table of them.

Writes ``benchmarks/results/<machine>.json``, ``{"C1 time": {"ratio": .., "goal": .., "met": true, ..}, ..}``, and the
same as a table beside it. Nothing is asserted but that both sides of a ratio give the same result; ratios depend on the
machine. ``--only C3 C8`` runs some files, ``--small`` shows on toy sizes that all of it works.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

KEYS = {
    "report_loss": ("C1", "C2"),
    "clustering": ("C3", "C4", "C13"),
    "loops": ("C5",),
    "films": ("C6", "C7"),
    "tokens": ("C8", "C17"),
    "steps": ("C9", "C10"),
    "probe": ("C11",),
    "processes": ("C12",),
    "index": ("C14", "C15", "C16"),
}


def machine() -> str:
    """A name for the file: cores and processor."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        named = [line.partition(":")[2] for line in info.read_text().splitlines() if line.startswith("model name")]
        model = named[0] if named else model
    words = "".join(letter if letter.isalnum() else " " for letter in model.lower()).split()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return "-".join([f"{cores}x", *words])


def number(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--small", action="store_true")
    asked = parser.parse_args(arguments)

    import importlib

    import torch

    from lingula import __version__

    path = asked.out / f"{machine()}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if asked.only and path.is_file() else {}
    for name, keys in KEYS.items():
        if asked.only and not set(keys) & set(asked.only):
            continue
        start = time.perf_counter()
        for figure in importlib.import_module(f"benchmarks.ratios.{name}").figures(asked.small):
            found[figure.key] = {
                "what": figure.what,
                "ratio": float(f"{figure.ratio:.4g}"),
                "goal": figure.goal,
                "better": "more" if figure.at_least else "less",
                "met": bool(figure.met),
                "detail": figure.detail,
            }
            print(f"{figure.key}: {number(figure.ratio)} (goal {number(figure.goal)}) {figure.detail}", flush=True)
        print(f"  {name}: {time.perf_counter() - start:.0f} s", flush=True)
    made = {"lingula": __version__, "torch": torch.__version__, "threads": torch.get_num_threads()}
    found = {key: found[key] for key in sorted(found, key=lambda key: (len(key.split()[0]), key)) if key != "run"}
    lines = ["| # | what | measured | goal | met |", "| --- | --- | --- | --- | --- |"]
    for key, row in found.items():
        sign = "≥" if row["better"] == "more" else "≤"
        met = "yes" if row["met"] else "**no**"
        lines.append(f"| {key} | {row['what']} | {number(row['ratio'])} | {sign} {number(row['goal'])} | {met} |")
    asked.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**found, "run": made}, indent=1) + "\n", encoding="utf-8")
    about = f"`make bench` on {machine()}, {made['threads']} threads, torch {made['torch']}."
    path.with_suffix(".md").write_text("\n".join([about, "", *lines]) + "\n", encoding="utf-8")
    print(path)
    return found


if __name__ == "__main__":
    main()
