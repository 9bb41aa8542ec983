"""``python -m offchainvm``: the same as the program ``offchainvm``."""

from offchainvm.cli import main

main()
