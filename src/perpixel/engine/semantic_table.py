"""Semantic segmentation measured, in words and as a table."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from perpixel.engine.semantic_metrics import SemanticMetrics


def print_semantic(console: Console, semantic: SemanticMetrics) -> None:
    """The summary and a row a class."""
    console.print("  ".join(f"{name} {value:.4f}" for name, value in semantic.summary.items()), highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), title="pixels by class", title_justify="left")
    for i, heading in enumerate(("class", "pixels", "IoU", "accuracy", "tIoU")):
        table.add_column(heading, justify="right" if i else "left")
    for row in semantic.per_class:
        table.add_row(Text(row.name), str(row.pixels), *(f"{v:.4f}" for v in (row.iou, row.accuracy, row.trimap_iou)))
    console.print(table)
