"""The load client, twice: in C (`*.c`, compiled when a benchmark starts) and in Python for machines without a compiler.

`unbroken.bench.client` starts either as a process of its own with the same arguments. Neither knows a server's frames.
"""
