"""What the notebooks leave behind: figures, numbers, and one HTML page."""

from .results import (
    PREVIEW,
    STEM,
    caption,
    figure_files,
    forget_results,
    keep_results,
    load_results,
    save_figure,
    save_results,
    show_figure,
    show_table,
    weights_used,
)

__all__ = [
    "PREVIEW",
    "STEM",
    "caption",
    "figure_files",
    "forget_results",
    "keep_results",
    "load_results",
    "save_figure",
    "save_results",
    "show_figure",
    "show_table",
    "weights_used",
]
