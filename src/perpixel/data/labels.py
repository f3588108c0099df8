"""Class names of a file made to agree with those a model was trained on."""

from collections.abc import Collection, Mapping, Sequence

from perpixel.errors import InputError


def align_classes(
    source: str, numbers: Mapping[str, int], used: Collection[str], classes: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Class names and the file's numbers of them, in the order of the labels.

    Without `classes` these are the file's own, in the order given. With `classes` (those of the training set) the labels
    follow them; a class that the file does not list gets a number that the file does not use.

    Args:
        source: the file, for the message.
        numbers: the file's number of each class it lists.
        used: the classes that have annotations.
        classes: the classes of the training set, or None.

    Raises:
        InputError: an annotated class is not among `classes`, or a name is no text.
    """
    for name in numbers:
        if any("\ud800" <= letter <= "\udfff" for letter in name):
            raise InputError(f"{source}: the class {name!r} holds half a letter, which no text can; rename it")
    if classes is None:
        if not numbers:
            raise InputError(f"{source}: there is no class; a data set needs at least one")
        return tuple(numbers), tuple(numbers.values())
    for name in numbers:
        if name in used and name not in classes:
            raise InputError(
                f"{source}: the class {name!r} is not among the training set's {', '.join(classes[:20])}"
                f"{' …' if len(classes) > 20 else ''}; rename it or leave its annotations out"
            )
    free = max(numbers.values(), default=0)
    aligned = []
    for name in classes:
        if name not in numbers:
            free += 1
        aligned.append(numbers.get(name, free))
    return tuple(classes), tuple(aligned)
