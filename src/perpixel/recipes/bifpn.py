"""BiFPN in place of FPN, in any recipe of a detector; the norms of its convolutions are taken over all processes."""

from dataclasses import replace

from perpixel.engine.recipe import Recipe
from perpixel.models.detector import DetectorConfig
from perpixel.nn.bifpn import BiFPN


def with_bifpn(recipe: Recipe, neck: BiFPN = BiFPN()) -> Recipe:
    """The recipe with the neck of thesis 002, 3.3.3."""
    assert isinstance(recipe.model, DetectorConfig)
    training = replace(recipe.training, sync_batch_norm=True)
    return replace(recipe, model=replace(recipe.model, neck=neck), training=training)
