"""Tasks: one file, one way to measure what was learned. A new task is one new file and one line here."""

from lingula.registry import Registry

TASKS = Registry(
    "task",
    {
        "classification": "lingula.tasks.classification:Classification",
        "detection": "lingula.tasks.detection:Detection",
        "segmentation": "lingula.tasks.segmentation:Segmentation",
        "retrieval": "lingula.tasks.retrieval:Retrieval",
        "class-retrieval": "lingula.tasks.class_retrieval:ClassRetrieval",
        "zero-shot": "lingula.tasks.zero_shot:ZeroShot",
        "grounding": "lingula.tasks.grounding:Grounding",
        "report-generation": "lingula.tasks.report_generation:ReportGeneration",
        "swap-test": "lingula.tasks.swap_test:SwapTest",
        "false-negatives": "lingula.tasks.false_negatives:FalseNegatives",
    },
    group="lingula.tasks",
    needs=("higher_is_better", "needs", "cells", "measure"),
)
