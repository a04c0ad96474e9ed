"""Methods: one file, one paper. A new method is one new file and one line here."""

from lingula.registry import Registry

METHODS = Registry(
    "method",
    {
        "clip": "lingula.methods.clip:CLIP",
        "cm-cgns": "lingula.methods.cm_cgns:CMCGNS",
    },
)
