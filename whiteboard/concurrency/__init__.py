"""What threads and forks ask of us: no word here of arrays, ops or stores.

`locks` are free in a forked child, `at_fork` tells things of a fork before and after it, `imports` are waited for by
one, `sqlite_mutexes` are held over it, `lazy` attributes have no lock that it could tear, `alarm` does work a while
later, `parallel` a few items at a time, `processes` say which one lives. Every other room may import it; it imports the
standard library and errors alone.
"""
