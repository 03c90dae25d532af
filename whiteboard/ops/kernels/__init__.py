"""What several families compute with: products, lengths and contractions whose bits no bin can change.

Pure NumPy, from arrays to arrays. What only one family needs stays in its file. The code is part of the fingerprints
of the ops that call it.
"""
