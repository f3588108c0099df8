"""Average precision by LVIS's rules, which differ from COCO's (Gupta, Dollar and Girshick 2019).

A class is judged in those images alone where it was looked for: where it has annotations, or is listed as absent. Where it is
listed as not annotated everywhere, a result without a partner counts neither way. The best 300 results of an image count, over
all classes together. Means are over classes, and over the rare, the common and the frequent ones. hotcoco does the matching.
"""

from typing import Any, Literal

from hotcoco import COCO, LVISeval, LVISResults

LIMIT = 300
"""Results that count in an image."""


def lvis_metrics(
    truth: dict[str, Any],
    results: list[dict[str, Any]],
    kind: Literal["bbox", "segm"] = "segm",
    max_detections: int = LIMIT,
) -> dict[str, float]:
    """AP, AP50, AP75, APs, APm, APl, and APr, APc, APf over the rare, common, frequent classes; -1 where there is none.

    Args:
        truth: as `LvisDataset.coco_truth` gives it.
        results: in COCO's form, with image and category numbers of the truth.
        kind: what is compared.
        max_detections: best results that count in an image.
    """
    reference = COCO(truth)
    evaluation = LVISeval(reference, LVISResults(reference, results, max_detections), kind)
    evaluation.run()
    found = evaluation.get_results()
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
    return {name: float(found[name]) for name in names}
