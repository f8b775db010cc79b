"""The command `medcl`, also as `python -m napari_medcl`."""

from __future__ import annotations

import os


def main() -> None:
    """Starts the command line with threads that give way.

    Threads that wait actively for each other hold the cores of a desk's other programs, and lose them in
    turn: beside one other busy process training went two to four times slower that way. The setting has
    to be there before torch is loaded.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from napari_medcl.cli import main as launch

    launch()


if __name__ == "__main__":
    main()
