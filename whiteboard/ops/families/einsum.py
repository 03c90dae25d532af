"""The einsum op: any contraction of any number of sources, by subscripts of one job."""

from __future__ import annotations

from string import ascii_letters

import numpy as np

from whiteboard.errors import ParamError
from whiteboard.ops.kernels.contract import contract
from whiteboard.ops.registry import builtin
from whiteboard.ops.shapes import wrong_param, wrong_shape
from whiteboard.ops.spec import REQUIRED, Example
from whiteboard.types import Array, Params, Shape


def parse(op: str, subscripts: object, arity: int) -> tuple[list[str], str]:
    """Return the subscripts of each source and of y; without ``->`` y's are those that occur once, in order.

    Raises
    ------
    ParamError
        For an ellipsis, another character, another number of sources, or a subscript of y that no source has.
    """
    if not isinstance(subscripts, str):
        raise wrong_param(op, "subscripts", "a string such as 'ij,j->i'", subscripts)
    inputs, arrow, result = subscripts.replace(" ", "").partition("->")
    terms = inputs.split(",")
    letters = "".join(terms)
    if not arrow:
        result = "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    if not set(letters + result) <= set(ascii_letters):
        raise wrong_param(op, "subscripts", "letters, commas and one '->' (no ellipsis)", subscripts)
    if len(terms) != arity:
        raise wrong_param(op, "subscripts", f"{arity} terms, as there are sources", subscripts)
    if not set(result) <= set(letters) or len(set(result)) != len(result):
        raise wrong_param(op, "subscripts", "each subscript of y once, and in a source", subscripts)
    if len(set(letters)) == len(ascii_letters):
        msg = f"op {op!r}: parameter 'subscripts': expected at most {len(ascii_letters) - 1} letters"
        raise ParamError(msg)
    return terms, result


def _shape(op: str, shapes: tuple[Shape, ...], params: Params) -> Shape:
    terms, result = parse(op, params["subscripts"], len(shapes))
    sizes: dict[str, int] = {}
    for slot, (term, shape) in enumerate(zip(terms, shapes, strict=True)):
        if len(term) != len(shape):
            raise wrong_shape(op, slot, f"{len(term)} dimensions for {term!r}", shape)
        for letter, size in zip(term, shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                raise wrong_shape(op, slot, f"size {sizes[letter]} for {letter!r} of {term!r}", shape)
    return tuple(sizes[letter] for letter in result)


def _gradient(slot: int, terms: list[str], result: str, xs: tuple[Array, ...], cotangent: Array) -> Array:
    """Return the gradient of one source: the cotangent contracted with the other sources, put in the source's place.

    A subscript that only this source has was summed over: the gradient repeats along it. One that occurs twice in
    the source is its diagonal: the gradient is 0 beside it.
    """
    term, x = terms[slot], xs[slot]
    others = [i for i in range(len(xs)) if i != slot]
    known = set(result).union(*(terms[i] for i in others))
    own = "".join(dict.fromkeys(term))
    reached = "".join(letter for letter in own if letter in known)
    signature = ",".join([result, *(terms[i] for i in others)]) + f"->{reached}"
    part = contract(signature, cotangent, *(xs[i] for i in others))
    if reached == term:
        return part
    grad = np.zeros(x.shape, x.dtype)
    job = next(letter for letter in ascii_letters if letter not in term)
    diagonal = np.einsum(f"{job}{term}->{job}{own}", grad)  # a view that can be written to
    diagonal[...] = part[(slice(None), *(slice(None) if letter in known else None for letter in own))]
    return grad


def _vjp(
    saved: tuple[Array, ...], cotangent: Array, need: tuple[bool, ...], /, subscripts: str
) -> tuple[Array | None, ...]:
    terms, result = parse("einsum", subscripts, len(saved))
    return tuple(
        _gradient(slot, terms, result, saved, cotangent) if wanted else None for slot, wanted in enumerate(need)
    )


_EXAMPLES = tuple(
    Example(shapes, {"subscripts": subscripts})
    for subscripts, *shapes_of in (
        ("ij,j->i", (2, 3), (3,)),
        ("bij,bjk->bik", (2, 2, 3), (2, 3, 2)),
        ("i,i,i->", (3,), (3,), (3,)),
        ("ij->j", (2, 3)),
        ("ij->", (2, 3)),
        ("ii->", (3, 3)),
        ("iij->ji", (2, 2, 3)),
        ("ij,kl->il", (2, 3), (2, 2)),
        ("i,j", (2,), (3,)),
        (" a b , b c ", (2, 3), (3, 1)),
        (",i->i", (), (3,)),
        ("i,i->", (0,), (0,)),
        ("ij,jk->ik", (2, 0), (0, 3)),
        ("i,i->", (64,), (64,)),
    )
    for shapes in (tuple(shapes_of),)
)


@builtin(
    "einsum",
    arity=None,
    kind="general",
    exactness="portable",
    vjp=_vjp,
    shape=_shape,
    examples=_EXAMPLES,
    params={"subscripts": REQUIRED},
    doc="the contraction that `subscripts` says, of one job's sources, products summed in one order",
)
def _einsum(xs: tuple[Array, ...], out: Array | None, /, subscripts: str) -> tuple[Array, tuple[Array, ...]]:
    terms, result = parse("einsum", subscripts, len(xs))
    return contract(",".join(terms) + "->" + result, *xs, out=out), xs
