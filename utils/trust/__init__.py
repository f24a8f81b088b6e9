"""Do the maps tell the truth? Tests of explanations."""

from .blur import BlurTest, blur_test, box, mean_interval, spread

__all__ = ["BlurTest", "blur_test", "box", "mean_interval", "spread"]
