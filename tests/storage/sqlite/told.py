"""What one who has a store open does when it is told, in a process that imports no test."""

from __future__ import annotations

from tests.storage.samples import Model, assert_found, key_of, page_of
from whiteboard.storage import Stores


def do(stores: Stores, what: str, numbers: list[int]) -> list[int]:
    """Put, flush, find or commit; returns the numbers that were found, or else those that were given."""
    if what == "put":
        stores.packages.put(page_of(numbers))
    elif what == "flush":
        stores.packages.flush()
    elif what == "find":
        found = stores.packages.find([key_of(number) for number in numbers])
        assert_found(found, numbers, lambda _: False)
        return [number for number, page in zip(numbers, found.page, strict=True) if page >= 0]
    elif what == "commit":
        model = Model("other", 10, seed=7)
        steps = [model.step(slice(3) if number else slice(None)) for number in range(numbers[0])]
        stores.versions.append(model.record, *steps[-1], model.columns)
    return numbers
