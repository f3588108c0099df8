"""A paper's table of ablations as data, and the command that trains its rows and puts ours beside the paper's."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: what the row varies, in a few words; one of its kind in the table.
        settings: ``dotted.path=value`` applied to the table's recipe.
        paper: the paper's figures by column ("mask AP", "AP50" …); empty where it gives none.
    """

    name: str
    settings: tuple[str, ...] = ()
    paper: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table of ablations: a recipe and what each row changes in it.

    A public constant of this type in a module of `perpixel.recipes` is a table that `perpixel ablate` knows.

    Attributes:
        name: what the command line calls it, such as "condinst_5.1": method and number of the table.
        source: paper, table, and the data its figures were measured on.
        recipe: name of the recipe that the rows change.
        rows: in the paper's order.
    """

    name: str
    source: str
    recipe: str
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        if len(set(names)) < len(names):
            raise ValueError(f"table {self.name} has two rows of one name")
