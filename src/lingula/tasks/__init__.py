"""Tasks: one file, one way to measure what was learned. A new task is one new file and one line here."""

from lingula.registry import Registry

TASKS = Registry(
    "task",
    {
        "classification": "lingula.tasks.classification:LinearProbe",
        "retrieval": "lingula.tasks.retrieval:retrieval",
        "pointing": "lingula.tasks.pointing:pointing",
        "swap-test": "lingula.tasks.swap_test:swap_test",
        "false-negatives": "lingula.tasks.false_negatives:false_negatives",
    },
)
