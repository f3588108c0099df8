"""What the principal components of binary masks need, gathered in one pass: their number, their sum, their products."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Principal:
    """Principal components of flattened masks, by falling variance; all float64.

    Attributes:
        mean: (p,) of the masks.
        components: (d, p) orthonormal rows; the first element of largest magnitude of each is positive.
        variances: (d,) of the masks along each component, over their number less 1.
    """

    mean: Float[Tensor, " p"]
    components: Float[Tensor, "d p"]
    variances: Float[Tensor, " d"]


class MaskMoments:
    """First and second moments of masks: all that principal components depend on, whatever the number of masks.

    It takes `size`^4 numbers (5 MB at 28); every count is a whole number, so the order of the masks does not matter.

    Args:
        size: cells a side.
    """

    def __init__(self, size: int):
        self.size, self.count = size, 0
        self.total = torch.zeros(size**2, dtype=torch.float64)
        self.products = torch.zeros(size**2, size**2, dtype=torch.float64)

    def add(self, masks: Bool[Tensor, "n s s"]) -> None:
        """Counts masks in: fewer than 2^24 at once, so that float32 holds their counts exactly."""
        flat = masks.flatten(1).float()
        self.count += len(flat)
        self.total += flat.sum(dim=0)
        self.products += flat.T @ flat

    def include(self, other: "MaskMoments") -> None:
        """Counts in all that `other` has counted."""
        self.count += other.count
        self.total += other.total
        self.products += other.products

    def principal(self, dim: int) -> Principal:
        """The first `dim` components (eq. 2 of MEInst is solved by them); at least one mask must be counted."""
        mean = self.total / self.count
        scatter = self.products - self.count * torch.outer(mean, mean)
        values, vectors = torch.linalg.eigh(scatter / max(self.count - 1, 1))
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1).T
        # The first of those that are largest but for rounding.
        size = vectors.abs()
        first = (size > 0.999 * size.amax(dim=1, keepdim=True)).int().argmax(dim=1, keepdim=True)
        vectors = vectors * vectors.gather(1, first).sign()
        return Principal(mean, vectors[:dim].contiguous(), values[:dim].contiguous())
