"""What an op's code and parameters are, as bytes: default deny, and looked at again before each use.

`walk` follows what a function leads to; `function_source`, `referenced_names`, `classes`, `arrays`, `torch_state` and
`primitives` say what is met on the way, `libraries` and `purity` whose it is and whether it may be there, `blas`
whether it may reach BLAS, `watch` whether it has changed; `parts` tells which helper has. `encoding` does the same for
parameters, `decoding` tells them from it. A kind of value that is to be seen through is a case in `walk` or `encoding`,
with a row in `tests/ops`.
"""
