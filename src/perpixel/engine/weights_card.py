"""The card of a model on the Hugging Face hub, written from its checkpoint: data, recipe, numbers, licence, how to use it."""

import yaml
from huggingface_hub import ModelCardData

from perpixel.config import to_dict
from perpixel.engine.checkpoint import Checkpoint
from perpixel.engine.weights_table import PUBLISHED
from perpixel.models.detector import DetectorConfig

SHOWN = 100
"""Classes named on the card."""


def model_card(checkpoint: Checkpoint, repository: str, licence: str) -> str:
    """The text of the card, all of it from the checkpoint but for the licence.

    Args:
        checkpoint: what is published.
        repository: OWNER/NAME where it will lie.
        licence: of the weights, as the hub abbreviates it.
    """
    recipe = checkpoint.recipe
    head = ModelCardData(
        license=licence,
        library_name="perpixel",
        pipeline_tag=_task(checkpoint),
        tags=["perpixel", "safetensors"],
    )
    about = f"Recipe `{recipe.name}`, {checkpoint.step} steps, weights written by perpixel {checkpoint.version}."
    parts = (
        f"---\n{head.to_yaml()}\n---",
        f"# {repository.partition('/')[2]}",
        f"{about} This page was generated from the checkpoint.",
        _use(repository),
        f"## What it finds\n\n{_classes(checkpoint)}",
        f"## Numbers\n\n{_numbers(checkpoint)}",
        f"## Data and settings\n\n{_data(checkpoint)}\n\n```yaml\n{_settings(checkpoint)}```",
        f"## Licence\n\nOf these weights: {licence}. Its data, and weights that it started from, may have terms of their own.",
    )
    return "\n\n".join(parts) + "\n"


def _task(checkpoint: Checkpoint) -> str:
    """The hub's name of what the model does."""
    model, data = checkpoint.recipe.model, checkpoint.recipe.data
    if model.keypoint_names():
        return "keypoint-detection"
    # BoxInst makes masks without having seen any.
    masks = data.masks or data.stuff or (isinstance(model, DetectorConfig) and model.instance is not None)
    return "image-segmentation" if masks else "object-detection"


def _use(repository: str) -> str:
    return f"""## Use

```python
import perpixel

found = perpixel.load("hf:{repository}").predict("photo.jpg")
found.save("found.jpg")
```

```bash
perpixel predict hf:{repository} photo.jpg
```

`hf:{repository}@COMMIT` names one version for good. The file holds tensors and JSON: loading it runs no code."""


def _classes(checkpoint: Checkpoint) -> str:
    lines = [_listed("classes of objects", checkpoint.class_names)]
    if checkpoint.stuff:
        lines.append(_listed("classes of stuff", checkpoint.stuff.names))
    if names := checkpoint.recipe.model.keypoint_names():
        lines.append(_listed("keypoints", names))
    return "\n\n".join(lines)


def _listed(what: str, names: tuple[str, ...]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} {what}: {', '.join(names[:SHOWN])}{more}."


def _numbers(checkpoint: Checkpoint) -> str:
    # COCO's -1 means that the data have no such object.
    measured = {name: value for name, value in checkpoint.metrics.items() if value >= 0}
    if not measured:
        return "The training measured none."
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in measured.items())
    return (
        f"As the training measured them on its validation split (`{checkpoint.recipe.data.val}`) at step {checkpoint.step}; "
        f"of an AP, 0.389 is what papers print as 38.9.\n\n| metric | value |\n| --- | ---: |\n{rows}"
    )


def _data(checkpoint: Checkpoint) -> str:
    data, start = checkpoint.recipe.data, checkpoint.recipe.training.init_from
    text = f"Trained on `{data.train}`, validated on `{data.val}`."
    if start in PUBLISHED:
        publisher = PUBLISHED[start].publisher
        return f"{text} Started from `{start}`, whose weights {publisher.name} published ({publisher.licence})."
    return f"{text} Started from `{start}`." if start else text


def _settings(checkpoint: Checkpoint) -> str:
    return yaml.safe_dump(to_dict(checkpoint.recipe), sort_keys=False, default_flow_style=None, width=110)
