"""Whether an op keeps its word: its VJP against differences, its bins against single jobs, its corners.

`conformance.check` is `wb.ops.check`; `run_once` is how it runs an op, `corners` the values at which gradients go
wrong. A new kind of fault to look for is a function here, called from there.
"""
