"""Python API: load a model, embed images and reports, see where a sentence looks. Floor 4.

Example (also in the README)::

    import lingula

    model = lingula.load("runs/demo")
    model.encode_image("film.png").embedding          # (1, D)
    model.encode_text("No effusion. Heart size is normal.").sentences[0]   # (2, D)
    model.attend("film.png", "There is a large left effusion.").maps      # (1, H, W) on the film's own pixels
"""

from lingula.runs.model import Attention, EncodedImages, EncodedReports, Model, load

__all__ = ["Attention", "EncodedImages", "EncodedReports", "Model", "load"]
