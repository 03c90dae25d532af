"""``python -m whiteboard``."""

from whiteboard.cli import main

main()
