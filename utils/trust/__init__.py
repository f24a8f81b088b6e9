"""Do the maps tell the truth? Tests of explanations.

The modules faithfulness, localisation, mosaics, parts, sanity, shortcut and single_deletion are
used by name.
"""

from . import faithfulness, localisation, mosaics, parts, sanity, shortcut, single_deletion
from .blur import BLUR_EFFECT, BLUR_IMAGES, BLUR_SD, BlurTest, blur_test, box, spread

__all__ = [
    "BLUR_EFFECT",
    "BLUR_IMAGES",
    "BLUR_SD",
    "BlurTest",
    "blur_test",
    "box",
    "faithfulness",
    "localisation",
    "mosaics",
    "parts",
    "sanity",
    "shortcut",
    "single_deletion",
    "spread",
]
