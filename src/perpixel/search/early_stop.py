"""Which trials are given up halfway: those far below what others had reached by then."""

from dataclasses import dataclass

from perpixel.search.trial import Hope, Outcome


@dataclass(frozen=True)
class EarlyStop:
    """Gives up a trial whose interim value is not above ``average * (1 - U(0, tolerance))``, U drawn uniformly.

    A trial above the average always goes on; the lower one is, the smaller its chance. The numbers are those of the search
    for compact decoders that thesis 004, 6.4.1, follows.

    Attributes:
        start: the average before the first value.
        decay: of the moving average, for each trial that asked.
        tolerance: at first; falls as the search knows more.
        milestones: after so many trials ...
        factors: ... the tolerance is multiplied by these, one after the other.
    """

    start: float = 0.01
    decay: float = 0.99
    tolerance: float = 0.9
    milestones: tuple[int, ...] = (100, 200, 300, 400)
    factors: tuple[float, ...] = (0.9, 0.8, 0.7, 0.6)

    def __post_init__(self) -> None:
        if len(self.milestones) != len(self.factors):
            raise ValueError(f"{len(self.milestones)} milestones need as many factors, not {len(self.factors)}")

    def hope(self, running: tuple[float, ...], trials: int) -> Hope:
        """The rule for a trial that begins after so many others."""
        tolerance = self.tolerance
        for milestone, factor in zip(self.milestones, self.factors, strict=True):
            tolerance *= factor if trials >= milestone else 1.0
        return Hope(running, self.start, tolerance)

    def update(self, running: tuple[float, ...], outcome: Outcome) -> tuple[float, ...]:
        """The averages, this trial's interim values counted."""
        averages = [*running, *([self.start] * (len(outcome.interim) - len(running)))]
        for question, value in enumerate(outcome.interim):
            averages[question] = self.decay * averages[question] + (1 - self.decay) * value
        return tuple(averages)
