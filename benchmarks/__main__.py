"""``python -m benchmarks``: see README.md."""

from benchmarks.run import main

main()
