"""Whether an op keeps its word: its VJP against differences, its bins against single jobs, its corners.

`conformance.check` is `wb.ops.check`. A new kind of fault to look for is a function here, called from there.
"""
