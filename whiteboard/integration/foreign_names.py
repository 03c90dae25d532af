"""Foreign names: what the ops of another system are called here, and which of them mean something else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from whiteboard import ops
from whiteboard.errors import ParamError, UnknownOpError
from whiteboard.types import OpLike, Params


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a foreign name means: an op of ours, its parameters that are always the same, and `stack` as in `Job`."""

    op: OpLike
    params: Params = field(default_factory=dict)
    stack: bool = False


@dataclass(frozen=True, slots=True)
class ForeignNames:
    """The names of another system's ops; one that is not in the table is refused.

    Parameters
    ----------
    means : mapping of str to str, function or Meaning
        Foreign name to the op that computes the same here.
    refused : mapping of str to str
        Foreign name to why no op here is meant, such as
        ``{"sum_k": "there the total of all elements, here a sum of rows"}``.

    Raises
    ------
    UnknownOpError
        An op that a name means is not there.
    ParamError
        A name is in both, or a parameter is none of its op.
    """

    means: Mapping[str, OpLike | Meaning]
    refused: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if twice := sorted(self.means.keys() & self.refused.keys()):
            msg = f"foreign name {twice[0]!r} has a meaning and is refused"
            raise ParamError(msg)
        for name in self.means:
            meaning = self.meaning(name)
            takes = ops.get(meaning.op).params
            if unknown := sorted(meaning.params.keys() - takes.keys()):
                msg = f"foreign name {name!r}: unknown parameter {unknown[0]!r} of op {ops.name_of(meaning.op)!r}"
                raise ParamError(msg)

    def meaning(self, name: str) -> Meaning:
        """Return what a name means.

        Raises
        ------
        UnknownOpError
            It is refused, and the message says why, or not in the table.
        """
        if name in self.refused:
            msg = f"foreign op {name!r} has no equal here: {self.refused[name]}"
            raise UnknownOpError(msg)
        if name not in self.means:
            msg = f"foreign op {name!r} is not in the table of names (it has {', '.join(sorted(self.means))})"
            raise UnknownOpError(msg)
        found = self.means[name]
        return found if isinstance(found, Meaning) else Meaning(found)
