"""Pictures. Every function returns the Figure; none of them computes a result."""

from .charts import (
    plot_agreement,
    plot_class_accuracy,
    plot_confusion,
    plot_counts,
    plot_history,
    plot_lines,
    plot_metrics,
    plot_panels,
    plot_reliability,
    plot_scatter,
    plot_scores,
)
from .heads import CONTROLS, plot_head_matrix, plot_heads, plot_iav, plot_mosaic
from .maps import (
    overlay,
    plot_effect,
    plot_explanations,
    plot_images,
    plot_map_grid,
    plot_maps,
    scaled,
    to_rgb,
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
    "readable",
    "scaled",
    "short",
    "to_rgb",
    "use_style",
]
