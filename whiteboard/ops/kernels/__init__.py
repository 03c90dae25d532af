"""What several families compute with, and whose bits no bin can change.

`contract` is sums of products, `rows` reductions over any axes, `lengths` Euclidean lengths, `products` long
products, `cotangents` the last step of a VJP, `jacobians` what pulls a residual back through one. Pure NumPy, from
arrays to arrays. What only one family needs stays in its file. The code is part of the fingerprints of the ops that
call it.
"""
