"""`python -m napari_medcl` is the command `medcl`."""

from __future__ import annotations

from napari_medcl.cli import main

if __name__ == "__main__":
    main()
