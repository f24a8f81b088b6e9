"""Pictures. Every function returns the Figure; none of them computes a result."""

from .charts import plot_agreement, plot_lines, plot_panels, plot_scatter, plot_scores
from .heads import CONTROLS, plot_head_matrix, plot_heads, plot_iav, plot_mosaic
from .maps import overlay, plot_effect, plot_explanations, plot_map_grid, plot_maps, scaled
from .pictures import plot_images, plot_sheet, to_rgb
from .results import (
    plot_class_accuracy,
    plot_confusion,
    plot_counts,
    plot_history,
    plot_metrics,
    plot_reliability,
)
from .style import SIGNED, UNSIGNED, readable, short, use_style

__all__ = [
    "CONTROLS",
    "SIGNED",
    "UNSIGNED",
    "overlay",
    "plot_agreement",
    "plot_class_accuracy",
    "plot_confusion",
    "plot_counts",
    "plot_effect",
    "plot_explanations",
    "plot_head_matrix",
    "plot_heads",
    "plot_history",
    "plot_iav",
    "plot_images",
    "plot_lines",
    "plot_map_grid",
    "plot_maps",
    "plot_metrics",
    "plot_mosaic",
    "plot_panels",
    "plot_reliability",
    "plot_scatter",
    "plot_scores",
    "plot_sheet",
    "readable",
    "scaled",
    "short",
    "to_rgb",
    "use_style",
]
