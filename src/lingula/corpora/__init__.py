"""Corpora: one file, one source. A new corpus is one new file and one line here."""

from lingula.registry import Registry

CORPORA = Registry(
    "corpus",
    {
        "synthetic": "lingula.corpora.synthetic:Synthetic",
        "iu-phantoms": "lingula.corpora.synthetic.reported:IuPhantoms",
        "csv": "lingula.corpora.csv_table:CsvTable",
        "mimic-cxr": "lingula.corpora.mimic_cxr:MimicCxr",
        "chexpert": "lingula.corpora.chexpert:CheXpert",
        "chexpert-plus": "lingula.corpora.chexpert_plus:CheXpertPlus",
        "rsna-pneumonia": "lingula.corpora.rsna_pneumonia:RsnaPneumonia",
        "siim-pneumothorax": "lingula.corpora.siim_pneumothorax:SiimPneumothorax",
        "covidx": "lingula.corpora.covidx:Covidx",
        "object-cxr": "lingula.corpora.object_cxr:ObjectCxr",
        "indiana": "lingula.corpora.indiana:Indiana",
        "nih-chestxray14": "lingula.corpora.nih_chestxray14:NihChestXray14",
        "covid19-images": "lingula.corpora.covid19_images:Covid19Images",
        "kermany": "lingula.corpora.kermany:Kermany",
    },
    group="lingula.corpora",
    needs=("name", "licence", "studies", "fingerprint"),
)
