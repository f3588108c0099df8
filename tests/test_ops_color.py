"""LAB against numbers worked out by hand and against scikit-image's."""

import pytest
import torch

from perpixel.ops.color import lab

# What skimage.color.rgb2lab 0.26.0 gives for these bytes.
SCIKIT_IMAGE = {
    (0, 0, 0): (0.0, 0.0, 0.0),
    (255, 255, 255): (100.0, -0.002455, 0.004653),
    (255, 0, 0): (53.240588, 80.092308, 67.202751),
    (0, 255, 0): (87.735099, -86.18303, 83.179703),
    (0, 0, 255): (32.295673, 79.185591, -107.8573),
    (128, 128, 128): (53.585013, -0.001473, 0.002791),
    (10, 5, 3): (1.622838, 1.029322, 1.217705),
    (200, 120, 40): (57.912293, 25.295217, 54.082782),
}


@pytest.mark.parametrize("rgb", SCIKIT_IMAGE)
def test_equals_scikit_image(rgb):
    found = lab(torch.tensor(rgb).reshape(1, 3, 1, 1) / 255).flatten()
    torch.testing.assert_close(found, torch.tensor(SCIKIT_IMAGE[rgb]), atol=1e-4, rtol=0)


def test_white_by_hand():
    """The matrix's rows add up to 0.950456, 1 and 1.088754; over the white (0.95047, 1, 1.08883) that is 1 - 1.473e-5, 1 and
    1 - 6.980e-5, whose cube roots are 1 - 4.910e-6, 1 and 1 - 2.327e-5: a = -500 x 4.910e-6, b = 200 x 2.327e-5."""
    found = lab(torch.ones(1, 3, 1, 1, dtype=torch.float64)).flatten()
    torch.testing.assert_close(found, torch.tensor([100, -0.002455, 0.004654]).double(), atol=2e-6, rtol=0)


def test_dark_grey_by_hand():
    """0.02 is below 0.04045: Y = 0.02 / 12.92 = 0.001548, below 0.008856: L = 116 x (7.787 Y + 16/116) - 16 = 1.3983."""
    found = lab(torch.full((1, 3, 1, 1), 0.02))
    assert found[0, 0].item() == pytest.approx(116 * 7.787 * 0.02 / 12.92, abs=1e-4) == pytest.approx(1.3983, abs=1e-4)


def test_every_pixel_by_itself():
    image = torch.rand(2, 3, 4, 5)
    whole = lab(image)
    torch.testing.assert_close(whole[1, :, 2:3, 3:4], lab(image[1:, :, 2:3, 3:4])[0], atol=1e-4, rtol=0)
