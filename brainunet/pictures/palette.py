"""One colour for one structure, and one side for the patient's left, whatever the picture.

The colours are from Okabe and Ito's palette, which the colour-blind can tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from brainunet.labels import Label
from brainunet.records import Structure

# said on every picture of a head, so that no two of them can be read differently
SIDES: Final = "radiological: the patient's left is on the right"

ON_WHITE: Final[Mapping[Structure, str]] = MappingProxyType(
    {"ET": "#D55E00", "TC": "#0072B2", "WT": "#009E73", "NETC": "#CC79A7", "SNFH": "#E69F00"}
)
# contours on an image; enhancing tumour as above, the others lighter, to be seen on grey
ON_GREY: Final[Mapping[Label, str]] = MappingProxyType({Label.SNFH: "#F0E442", Label.NETC: "#56B4E9", Label.ET: "#D55E00"})
