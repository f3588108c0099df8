import io

import numpy as np
import pytest
from PIL import Image as Pillow

from perpixel.data.image import image_size, read_image
from perpixel.errors import InputError

RED = np.zeros((4, 6, 3), dtype=np.uint8)
RED[:2] = [250, 10, 20]  # upper half red, lower half black


def _rotated(path, orientation):
    """Saves RED as a camera would store it under an EXIF orientation: 6 means stored lying on its left side."""
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    stored = {1: RED, 3: RED[::-1, ::-1], 6: np.rot90(RED, 1), 8: np.rot90(RED, -1)}[orientation]
    Pillow.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_orientation_is_applied(tmp_path, orientation):
    path = tmp_path / "a.png"
    _rotated(path, orientation)
    assert np.array_equal(read_image(path), RED)
    assert image_size(path) == (4, 6)


def test_annotations_made_on_stored_pixels_decide_the_orientation(tmp_path):
    path = tmp_path / "a.png"
    _rotated(path, 6)
    assert read_image(path, (4, 6)).shape == (4, 6, 3)
    assert np.array_equal(read_image(path, (6, 4)), np.rot90(RED, 1))


def test_another_size_than_stated_names_both(tmp_path):
    path = tmp_path / "a.png"
    Pillow.fromarray(RED).save(path)
    with pytest.raises(InputError, match=r"a\.png: the image is 6x4 but its annotation says width 7, height 4"):
        read_image(path, (4, 7))


def test_sixteen_bits_keep_their_brightness(tmp_path):
    """65535 is white (255), 32768 is the middle (128), 256 is 1, 255 is 0: the upper byte."""
    path = tmp_path / "a.png"
    Pillow.fromarray(np.array([[65535, 32768, 256, 255]], dtype=np.uint16)).save(path)
    assert read_image(path).tolist() == [[[255] * 3, [128] * 3, [1] * 3, [0] * 3]]


def test_a_dark_sixteen_bit_image_is_not_taken_for_eight_bits(tmp_path):
    path = tmp_path / "a.png"
    Pillow.fromarray(np.array([[200, 100]], dtype=np.uint16)).save(path)
    assert read_image(path).max() == 0


def test_float_tiff_in_shares_of_white(tmp_path):
    path = tmp_path / "a.tiff"
    Pillow.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)).save(path)
    assert read_image(path)[0, :, 0].tolist() == [0, 127, 255]


def test_grey_palette_cmyk_and_alpha(tmp_path):
    grey = tmp_path / "grey.png"
    Pillow.fromarray(np.array([[7, 200]], dtype=np.uint8)).save(grey)
    assert read_image(grey).tolist() == [[[7] * 3, [200] * 3]]
    palette = tmp_path / "palette.png"
    Pillow.fromarray(RED).quantize(4).save(palette)
    assert np.abs(read_image(palette).astype(int) - RED).max() <= 2
    cmyk = tmp_path / "cmyk.jpg"
    Pillow.new("CMYK", (8, 8), (0, 255, 255, 0)).save(cmyk, quality=100)
    assert np.abs(read_image(cmyk).astype(int) - [255, 0, 0]).max() <= 4
    alpha = tmp_path / "alpha.png"
    Pillow.fromarray(np.array([[[9, 9, 9, 255], [9, 9, 9, 0]]], dtype=np.uint8)).save(alpha)
    assert read_image(alpha).tolist() == [[[9] * 3, [255] * 3]]


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_damaged_file_is_named(tmp_path, damage):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Pillow.fromarray(noise).save(buffer, "JPEG")
    content = {"cut": buffer.getvalue()[:900], "text": b"not an image", "empty": b""}[damage]
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.jpg: cannot be read as an image"):
        read_image(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.jpg: no such image file"):
        read_image(tmp_path / "none.jpg")
