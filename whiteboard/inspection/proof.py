"""Proof: whether a page's keys come out of what it says of them; nothing else vouches for that, or for its sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from whiteboard.identity import keys
from whiteboard.identity.lineage import Said
from whiteboard.records.packages import Page


class Names(NamedTuple):
    """What keys are made of beside tokens."""

    scheme: bytes
    identity: keys.Identity

    def keys(self, tokens: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the keys of n packages, (n, 16), from their tokens, (n, k, 16)."""
        made = keys.SCHEMES[self.scheme](self.identity, tokens)
        return np.frombuffer(b"".join(made), np.uint8).reshape(-1, keys.DIGEST_BYTES)

    def prove(self, tokens: NDArray[np.uint8], given: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Whether they are the keys that are given, (n,)."""
        return np.asarray((self.keys(tokens) == given).all(axis=1))


def named(op: str, said: Said | None) -> Names | None:
    """Return what a page says that its keys are made of; None where it does not say all of it."""
    if said is None or said.scheme not in keys.SCHEMES or (identity := said.identity(op)) is None:
        return None
    return Names(said.scheme, identity)


def tokens_of(sources: Sequence[NDArray[np.generic]], scheme: bytes) -> NDArray[np.uint8]:
    """Return the tokens of sources that are stacked on axis 0, (n, k, 16), as a scheme makes them."""
    return np.stack([keys.TOKENS[scheme](source) for source in sources], axis=1)


def tokens_in(page: Page, scheme: bytes) -> NDArray[np.uint8] | None:
    """Return the whole tokens that a page has, or those of the sources that it keeps; None where it has neither."""
    stored = page.tokens
    if stored is not None and stored.ndim == 3 and stored.shape[1] and stored.shape[2:] == (keys.DIGEST_BYTES,):
        return stored.astype(np.uint8, copy=False)
    return tokens_of(page.sources, scheme) if page.sources else None


def faithful(page: Page, scheme: bytes) -> NDArray[np.bool_]:
    """Return which packages' sources are what their tokens are of, (n,); that those are of their keys is not said."""
    tokens = tokens_in(page, scheme)
    if tokens is None or not page.sources or tokens.shape[1] != len(page.sources):
        return np.zeros(page.n, np.bool_)
    return np.asarray((tokens_of(page.sources, scheme) == tokens).all(axis=(1, 2)))
