"""Methods: one file, one paper. A new method is one new file and one line here."""

from lingula.registry import Registry

METHODS = Registry(
    "method",
    {
        "barlow-twins": "lingula.methods.barlow_twins:BarlowTwins",
        "clip": "lingula.methods.clip:CLIP",
        "cm-cgns": "lingula.methods.cm_cgns:CMCGNS",
        "convirt": "lingula.methods.convirt:ConVIRT",
        "gloria": "lingula.methods.gloria:GLoRIA",
        "lovt": "lingula.methods.lovt:LoVT",
        "mae": "lingula.methods.mae:MAE",
        "mgca": "lingula.methods.mgca:MGCA",
        "moco": "lingula.methods.moco:MoCo",
        "moco-v2": "lingula.methods.moco_v2:MoCoV2",
        "place": "lingula.methods.place:PLACE",
        "prior": "lingula.methods.prior:PRIOR",
        "siglip": "lingula.methods.siglip:SigLIP",
        "simclr": "lingula.methods.simclr:SimCLR",
        "simsiam": "lingula.methods.simsiam:SimSiam",
        "vicreg": "lingula.methods.vicreg:VICReg",
    },
    group="lingula.methods",
    needs=("recipes", "forward", "encode_image"),
)
