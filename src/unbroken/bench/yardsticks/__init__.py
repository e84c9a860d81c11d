"""The other ways of doing the same, each as a program of its own that `unbroken.bench.subjects` starts."""
