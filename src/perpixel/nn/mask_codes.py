"""Masks as a few numbers: what MEInst predicts in place of pixels (Zhang et al. 2020, "Mask Encoding", section 3.2).

A code is a dictionary of masks that is fitted to a data set once and constant from then on: buffers, stored in the checkpoint.
Whatever the dictionary, it has two functions, `encode` and `decode`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from perpixel.errors import InputError
from perpixel.nn.mask_moments import MaskMoments

LEAST_MARGIN, MOST_MARGIN = 0.01, 0.05
AT_ONCE = 256
"""Masks that are multiplied with dictionaries of their own classes together."""


@dataclass(frozen=True)
class CodeConfig(ABC):
    """Settings of a code.

    Attributes:
        dim: N, numbers a mask.
        size: cells a side of the masks.
        file: what `perpixel fit-codes` wrote, read when a training starts; None fits the code to the training data then. Later
            the checkpoint holds the code, and nothing reads the file.
    """

    dim: int = 60
    size: int = 28
    file: str | None = None

    def __post_init__(self) -> None:
        if self.size < 2 or not 1 <= self.dim <= self.size**2:
            raise InputError(
                f"model.instance.code: dim={self.dim} numbers do not fit masks of size={self.size}: dim is from 1 to size^2"
            )

    @abstractmethod
    def build(self, classes: int) -> "MaskCode":
        """The code, not fitted yet."""


class MaskCode(nn.Module, ABC):
    """A dictionary of masks.

    Attributes:
        counts: masks that each row (all classes together, or each class) was fitted to; 0: not fitted.
    """

    counts: Tensor

    def __init__(self, config: CodeConfig, rows: int):
        super().__init__()
        self.config, self.dim, self.size = config, config.dim, config.size
        self.register_buffer("counts", torch.zeros(rows, dtype=torch.int64))

    @property
    def fitted(self) -> bool:
        """Whether every row has its dictionary."""
        return bool((self.counts > 0).all())

    @abstractmethod
    def encode(self, masks: Bool[Tensor, "n s s"], labels: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """The numbers of each mask."""

    @abstractmethod
    def logits(self, codes: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> Float[Tensor, "n s s"]:
        """Above 0 where the mask of a code is: what implicit encoding classifies pixels by (section 4.1)."""

    @abstractmethod
    def decode(self, codes: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> Float[Tensor, "n s s"]:
        """The mask of each code as values from 0 to 1."""


@dataclass(frozen=True)
class PCA(CodeConfig):
    """Settings of a linear code, eq. 1 and 2; the defaults are those of the released models.

    Attributes:
        whiten: the numbers are divided by their standard deviation over the data, so that all weigh the same in the loss.
        logit: masks become logits before they are projected, and a sigmoid ends the reconstruction; False is plain eq. 1.
        margin: with `logit`, how far from 0 and 1 masks are taken to be. None draws it for each pixel, as the released code
            does: a uniform number below 0.05, at least 0.01.
        class_specific: a dictionary for each class; False has one for all.
    """

    whiten: bool = True
    logit: bool = True
    margin: float | None = None
    class_specific: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.margin is not None and not 0 < self.margin < 0.5:
            raise InputError(f"model.instance.code.margin={self.margin} is not between 0 and 0.5")

    def build(self, classes: int) -> "LinearCode":
        """The code, with the lowest frequencies of the cosine transform for components until it is fitted."""
        return LinearCode(self, classes if self.class_specific else 1)


class LinearCode(MaskCode):
    """v = T u and u = W v (eq. 1), with W the transpose of T: principal components.

    Attributes:
        components: (k, d, p) T of each row; p pixels, d numbers.
        means: (k, p) of u over the data.
        variances: (k, d) of the numbers before they are whitened.
    """

    components: Tensor
    means: Tensor
    variances: Tensor

    def __init__(self, config: PCA, rows: int):
        super().__init__(config, rows)
        self.config: PCA = config
        start = cosine_components(config.dim, config.size)
        self.register_buffer("components", start.expand(rows, -1, -1).clone())
        self.register_buffer("means", torch.zeros(rows, config.size**2))
        # Of pixels of this height all energy in so many numbers: their mean square is 1 at most.
        height = logit_height(config.margin)[0] if config.logit else 1.0
        self.register_buffer("variances", torch.full((rows, config.dim), (config.size * height) ** 2 / config.dim))

    def encode(self, masks: Bool[Tensor, "n s s"], labels: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """v = T (u - mean), whitened."""
        return self.project(self.transformed(masks), labels)

    def project(self, pixels: Float[Tensor, "n p"], labels: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """The numbers of masks that are transformed already: eq. 1, left."""
        centered = pixels - self._of(self.means, labels)
        codes = self._product(centered, self.components.mT, labels)
        return codes / self._of(self.variances, labels).sqrt() if self.config.whiten else codes

    def reconstruct(self, codes: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> Float[Tensor, "n p"]:
        """Eq. 1, right: one matrix product for all masks."""
        scaled = codes * self._of(self.variances, labels).sqrt() if self.config.whiten else codes
        pixels = self._product(scaled, self.components, labels)
        return pixels + self._of(self.means, labels)

    def logits(self, codes: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> Float[Tensor, "n s s"]:
        """The reconstruction; of a plain code its height above one half."""
        found = self.reconstruct(codes, labels)
        return (found if self.config.logit else found - 0.5).unflatten(1, (self.size, self.size))

    def decode(self, codes: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> Float[Tensor, "n s s"]:
        """The reconstruction from 0 to 1: through a sigmoid, or, plain, cut off."""
        found = self.reconstruct(codes, labels)
        return (found.sigmoid() if self.config.logit else found.clamp(0, 1)).unflatten(1, (self.size, self.size))

    def transformed(self, masks: Bool[Tensor, "n s s"]) -> Float[Tensor, "n p"]:
        """u: masks as 0 and 1, or as logits a margin away from them."""
        inside = masks.flatten(1)
        values = inside.to(self.means.dtype)
        if not self.config.logit:
            return values
        margin = self.config.margin
        away = random_margin(torch.rand_like(values)) if margin is None else torch.full_like(values, margin)
        return torch.logit(torch.where(inside, 1 - away, away))

    def fit(self, moments: Sequence[MaskMoments]) -> None:
        """Takes the principal components of masks, a row of the code each.

        Logits are +L inside a mask and -L outside: u = L (2 x - 1) for a mask x of 0 and 1. So they have the components of
        the masks themselves, (2 E[L])^2 times their variances, and, where L is drawn for each pixel by itself, Var[L] more
        along every direction. That is what the released code's PCA of such logits tends to, and no random number is needed.
        """
        for row, seen in enumerate(moments):
            found = seen.principal(self.dim)
            mean, variances = found.mean, found.variances
            if self.config.logit:
                height, spread = logit_height(self.config.margin)
                mean = height * (2 * mean - 1)
                variances = (2 * height) ** 2 * variances + spread * seen.count / max(seen.count - 1, 1)
            # A direction in which no mask differs from another has nothing to divide by.
            variances = torch.where(variances > 1e-9 * variances.max(), variances, 1.0)
            self.components[row] = found.components.to(self.components)
            self.means[row] = mean.to(self.means)
            self.variances[row] = variances.to(self.variances)
            self.counts[row] = seen.count

    def _product(
        self, values: Float[Tensor, "n a"], tables: Float[Tensor, "k a b"], labels: Int[Tensor, " n"]
    ) -> Float[Tensor, "n b"]:
        """Each row times the table of all classes, or of its own: gathered for a few rows at a time, as tables are large."""
        if len(self.counts) == 1:
            return values @ tables[0]
        if torch.compiler.is_exporting():
            return torch.einsum("na,nab->nb", values, tables[labels])
        parts = zip(values.split(AT_ONCE), labels.split(AT_ONCE), strict=True)
        return torch.cat([torch.einsum("na,nab->nb", value, tables[label]) for value, label in parts])

    def _of(self, table: Float[Tensor, "k m"], labels: Int[Tensor, " n"]) -> Float[Tensor, "_ m"]:
        """Each mask's row of a table; the only one for all where classes share it."""
        return table if len(self.counts) == 1 else table[labels]


def random_margin(uniform: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The released code's distance from 0 and 1, from uniform numbers in [0, 1)."""
    return (MOST_MARGIN * uniform).clamp(min=LEAST_MARGIN)


def logit_height(margin: float | None) -> tuple[float, float]:
    """Mean and variance of the logit's magnitude: log((1 - m) / m) at a margin m, or over the random ones."""
    if margin is not None:
        return math.log((1 - margin) / margin), 0.0
    steps = 1 << 16
    uniform = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    heights = -torch.logit(random_margin(uniform))
    return heights.mean().item(), heights.var(correction=0).item()


def cosine_components(dim: int, size: int) -> Float[Tensor, "d p"]:
    """The `dim` lowest frequencies of the two-dimensional cosine transform (DCT-II) of `size` x `size` pixels, orthonormal."""
    place = (torch.arange(size, dtype=torch.float64) + 0.5) * math.pi / size
    waves = torch.cos(torch.arange(size, dtype=torch.float64)[:, None] * place)
    waves = waves / waves.norm(dim=1, keepdim=True)
    pairs = sorted(((i, j) for i in range(size) for j in range(size)), key=lambda pair: (sum(pair), pair))[:dim]
    down, across = torch.tensor(pairs).T
    return (waves[down, :, None] * waves[across, None, :]).flatten(1).float()
