"""Why a job is a hit or a miss, whether what is kept is right, and what a change of code does to it.

`explain` tells a job from the nearest package, `audit` computes packages again, `rekey` gives them other keys,
`table` shows them, where a `condition` holds; `proof` is what vouches for what a page says; `asking` is all of it for
one board. The store comes as its ABC, what is read of it as records. May import `systems` and below. Another way of
looking at a store is a file here and a method of `Board`.
"""
