"""Do the maps tell the truth? Tests of explanations."""

from ..stats import mean_interval
from .blur import BlurTest, blur_test, box, spread

__all__ = ["BlurTest", "blur_test", "box", "mean_interval", "spread"]
