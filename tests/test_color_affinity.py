"""Colour affinity: pairs counted as the slow obvious loop counts them, by hand on four pixels, and the command."""

import math

import numpy as np
import pytest
import torch

from perpixel.cli.main import main
from perpixel.data.shapes import ShapesDataset
from perpixel.engine.color_affinity import TAUS, Affinity, advice, count_edges, study_affinity
from perpixel.errors import InputError
from perpixel.models.boxinst import Scene
from perpixel.ops.affinity import half_neighbourhood
from perpixel.recipes import get_recipe


def fresh(offsets):
    return {offset: np.zeros((2, len(TAUS)), dtype=np.int64) for offset in offsets}


def test_four_pixels_by_hand():
    """A row of four pixels of lightness 0, 0, 2, 2; box on the middle two, mask on the third; theta 2; neighbours to the right.

    Pairs (0,1), (1,2), (2,3) all touch the box. (0,1): likeness 1, both outside the mask, one label, last bin (0.99).
    (1,2): distance 2, likeness exp(-1) = 0.3679, two labels, bin 36. (2,3): likeness 1, two labels, last bin.
    """
    colors = torch.zeros(1, 3, 1, 4)
    colors[0, 0, 0] = torch.tensor([0.0, 0.0, 2.0, 2.0])
    box = torch.tensor([[[False, True, True, False]]])
    mask = torch.tensor([[[False, False, True, False]]])
    counts = fresh([(0, 1)])
    count_edges(counts, Scene(colors, torch.ones(1, 1, 4, dtype=torch.bool)), box, mask, theta=2.0)
    two, one = counts[(0, 1)]
    assert dict(enumerate(two)) == {i: int(i in (36, 99)) for i in range(100)}
    assert one[99] == 1 and one.sum() == 1


@pytest.mark.parametrize("size,dilation", [(3, 1), (3, 2), (5, 2)])
def test_counts_equal_a_loop_over_pixels(size, dilation):
    """Over all pixels, all later neighbours, all objects; one image with cells that cannot be seen, boxes at its border."""
    generator = torch.Generator().manual_seed(size * 10 + dilation)
    height, width, theta = 9, 11, 5.0
    colors = torch.rand(1, 3, height, width, generator=generator) * 6
    valid = torch.ones(1, height, width, dtype=torch.bool)
    valid[:, 7:], valid[:, :, 10:] = False, False
    boxes, masks = torch.zeros(2, 3, height, width, dtype=torch.bool).unbind()
    for box, (top, left, bottom, right) in zip(boxes, ((0, 0, 4, 5), (3, 2, 8, 10), (5, 5, 6, 6)), strict=True):
        box[top:bottom, left:right] = True
    masks[:] = boxes & (torch.rand(3, height, width, generator=generator) > 0.4)
    offsets = half_neighbourhood(size, dilation)
    counts = fresh(offsets)
    count_edges(counts, Scene(colors, valid), boxes, masks, theta)
    expected = fresh(offsets)
    for box, mask in zip(boxes, masks, strict=True):
        for down, right in offsets:
            for y in range(height - down):
                for x in range(width):
                    if not 0 <= x + right < width:
                        continue
                    here, there = (y, x), (y + down, x + right)
                    if not (valid[0][here] and valid[0][there] and (box[here] or box[there])):
                        continue
                    distance = math.dist(colors[0][:, y, x].tolist(), colors[0][:, y + down, x + right].tolist())
                    reached = int(math.exp(-distance / theta) * 100)
                    expected[(down, right)][int(mask[here] == mask[there]), min(reached, 99)] += 1
    assert sum(count.sum() for count in expected.values()) > 150
    for offset in offsets:
        assert np.array_equal(counts[offset], expected[offset]), offset


def of(right, wrong):
    """Counts at least at each tau: `right` and `wrong` as {tau: count from here on}, falling."""
    columns = [[values[max(t for t in values if t <= tau)] for tau in TAUS] for values in (right, wrong)]
    return Affinity(3, 2, *(np.array(column, dtype=np.int64) for column in columns))


def test_shares_and_advice_by_hand():
    """900 right and 100 wrong pairs, of which 600 and 6 are alike by 0.1, 300 and 1 by 0.5."""
    affinity = of({0.0: 900, 0.1: 600, 0.5: 300}, {0.0: 100, 0.1: 6, 0.5: 1})
    assert affinity.share_right(0.0) == 0.9 and affinity.share_right(0.1) == 600 / 606
    assert affinity.kept(0.1) == 2 / 3 and affinity.mistaken(0.5) == 0.01
    assert advice(affinity).startswith("BoxInst suits these images: with model.instance.tau=0.1, 99.0 %")
    camouflaged = of({0.0: 900, 0.1: 600, 0.5: 300}, {0.0: 100, 0.1: 66, 0.5: 30})
    assert advice(camouflaged).startswith("It is doubtful") and "tau=0.5, only 90.9 %" in advice(camouflaged)
    noisy = of({0.0: 900, 0.05: 100}, {0.0: 100, 0.05: 0})
    assert advice(noisy).startswith("BoxInst does not suit")


def test_synthetic_shapes_suit():
    """Shapes of one colour on a ground of another: pairs of like colours are right far more often than pairs at large."""
    recipe = get_recipe("boxinst_shapes")
    study = study_affinity(ShapesDataset(4, seed=0), recipe)
    own = study.affinities[0]
    assert (own.size, own.dilation) == (3, 2) and len(study.affinities) == 4
    assert study.images == 4 and study.objects > 4 and study.without_mask == 0
    assert own.share_right(0.1) > own.share_right(0.0) + 0.02 and own.mistaken(0.1) < 0.4
    assert all(affinity.right[0] > affinity.right[50] > 0 for affinity in study.affinities)


def test_it_is_what_the_loss_trusts():
    """The head's own scene and theta are used: with theta so large that all is alike, every pair is trusted at every tau."""
    from perpixel.config import override

    recipe = override(get_recipe("boxinst_shapes"), ["model.instance.theta=1e9"])
    own = study_affinity(ShapesDataset(1, seed=0), recipe).affinities[0]
    assert own.kept(0.9) == own.mistaken(0.9) == 1.0


def test_command(tmp_path, capsys):
    page = tmp_path / "sub" / "page.html"
    arguments = ["analyze", "colour-affinity", "shapes:3:0", "--recipe", "boxinst_shapes", "--page", str(page)]
    assert main([*arguments, "--limit", "2", "model.instance.size=5"]) == 0
    shown = capsys.readouterr().out
    assert "3x3, dilation 2" in shown and "98.3 %" in shown and "2 images" in shown
    assert shown.strip().splitlines()[-1].endswith(".") and "BoxInst" in shown.strip().splitlines()[-1]
    assert shown.index("5x5, dilation 2") < shown.index("3x3, dilation 1")  # the recipe's own comes first
    text = page.read_text()
    assert text.count("<svg") == 2 and text.count("<polyline") == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shapes:2", "--recipe", "condinst_shapes"], "not a recipe of BoxInst"),
        (["shapes:2", "--limit", "0"], "--limit 0"),
        (["nowhere.json"], "nowhere.json"),
    ],
)
def test_bad_input(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["analyze", "colour-affinity", *arguments]) == 2
    assert message in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_data_without_masks_is_refused(monkeypatch):
    dataset = ShapesDataset(1, seed=0)
    genuine = dataset.record

    def without(index):
        record = genuine(index)
        object.__setattr__(record, "shapes", (None,) * len(record))
        return record

    monkeypatch.setattr(dataset, "record", without)
    with pytest.raises(InputError, match="no object has a mask"):
        study_affinity(dataset, get_recipe("boxinst_shapes"))
