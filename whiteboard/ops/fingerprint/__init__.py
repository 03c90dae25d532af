"""What an op's code and parameters are, as bytes: default deny, and looked at again before each use.

`digest` is of a function and all that it leads to, by one `walk`; `functions`, `classes`, `modules`, `constants`,
`arrays` and `torch_state` write what is met on the way; `function_source` and `referenced_names` tell of a source,
`primitives` of gradients; `libraries` and `purity` say whose a thing is and whether it may be there, `blas` whether it
may reach BLAS, `watch` whether it has changed; `parts` tells which helper has. `encoding` does the same for parameters,
`decoding` tells them from it. A kind of value that is to be seen through is a `write` in its file with a line in
`digest.KINDS`, or a case in `encoding`, with a row in `tests/ops`.
"""
