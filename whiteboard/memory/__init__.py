"""Where large data lies in memory: `room` is what it is read, or computed, into.

It knows of threads and forks alone, and nothing of arrays' meaning; the stages and the store may import it.
"""
