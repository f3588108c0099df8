"""Colours of classes and instances: distinct, stable from run to run, the same in pictures and in the gallery."""

import colorsys

Color = tuple[int, int, int]

# Told apart on photos and in both the light and the dark gallery; neighbours in the list differ most.
_FIRST: tuple[Color, ...] = (
    (255, 82, 82),
    (41, 182, 246),
    (255, 202, 40),
    (102, 220, 110),
    (206, 110, 255),
    (255, 145, 40),
    (38, 216, 196),
    (255, 100, 175),
    (170, 200, 50),
    (110, 135, 255),
    (214, 160, 110),
    (160, 232, 255),
)
_GOLDEN = 0.6180339887498949


def color(index: int) -> Color:
    """RGB of the class or instance with this number, 0..255."""
    if index < len(_FIRST):
        return _FIRST[index]
    # Steps of the golden ratio never come close to an earlier hue soon; the brightness alternates.
    hue = (index * _GOLDEN) % 1
    red, green, blue = colorsys.hls_to_rgb(hue, 0.50 + 0.12 * (index % 3), 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


def hexadecimal(value: Color) -> str:
    """The colour as HTML has it, ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*value)


def readable_on(background: Color) -> Color:
    """Black or white, whichever stands out more on `background` (relative luminance of WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in background)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # Contrast with black is (L + .05) / .05, with white 1.05 / (L + .05): equal at L = 0.179.
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)
