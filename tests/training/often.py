"""The command `medcl`, saving after every step: for tests that kill it while it writes."""

from __future__ import annotations

import sys

from napari_medcl.__main__ import main
from napari_medcl.training import loop

if __name__ == "__main__":
    loop._SAVE_EVERY_S = -1.0
    sys.exit(main())
