"""How tables write that a value is missing. Floor 2."""

from __future__ import annotations

# Errors of Excel and LibreOffice, in lower case: English, German, French, Spanish, Italian, Portuguese and Dutch.
_ERRORS = """
    #n/a #name? #value! #ref! #div/0! #num! #null! #spill! #calc! #field! #blocked! #connect! #unknown! #getting_data
    #nv #wert! #bezug! #zahl! #überlauf! #kalk! #feld!
    #nom? #valeur! #nombre! #nul! #propagation! #champ!
    #n/d #¿nombre? #¡valor! #¡ref! #¡div/0! #¡num! #¡nulo! #¡desbordamiento! #¡calc!
    #nome? #valore! #rif! #nullo! #valor! #núm! #nulo!
    #n/b #naam? #waarde! #verw! #deel/0! #getal! #leeg!
"""
EXCEL_ERRORS = frozenset(_ERRORS.split())
# Cells that say nothing, in lower case: what pandas reads as missing, what people write, and the errors.
_WORDS = """
    nan -nan na n/a n.a. #na <na> nat null none - -- ? unknown 1.#ind -1.#ind 1.#qnan -1.#qnan
"""
MISSING = EXCEL_ERRORS | {"", "#n/a n/a", *_WORDS.split()}
