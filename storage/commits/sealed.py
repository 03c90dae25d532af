"""A commit from elsewhere: its row, its node pages one after another, and the seal over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from whiteboard.errors import CorruptPackageError
from whiteboard.storage.commits.log import is_seal
from whiteboard.storage.page import page_checks, row_checks
from whiteboard.storage.page.digests import Laid


class Sealed:
    """Looks at one commit: first at its row, then at each node page by `add`, then by `close` at the whole.

    Raises
    ------
    CorruptPackageError
        It is none that a system makes, or not the one that was sealed.
    """

    def __init__(self, uuid: str, values: Mapping[str, Any], sealed: bytes) -> None:
        self._uuid, self._values, self._seal = uuid, values, sealed
        self._digests: list[bytes] = []
        self._rows = 0
        try:
            row_checks.commit(values)
        except ValueError as error:
            raise CorruptPackageError(str(error)) from error

    def add(self, page: Laid) -> None:
        """Look at the next node page, whose digest fits."""
        self._rows += page_checks.check_nodes(self._uuid, self._values["number"], page)
        self._digests.append(page.digest)

    def close(self) -> None:
        """Look at what only the whole tells."""
        if not is_seal(self._seal, self._uuid, self._values, self._digests):
            message = "its row or its pages are not those that were written"
            raise CorruptPackageError(message)
        if self._rows != self._values["rows"]:
            message = f"it has {self._rows} rows, and says {self._values['rows']}"
            raise CorruptPackageError(message)
