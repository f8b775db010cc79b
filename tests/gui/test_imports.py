from __future__ import annotations

import subprocess
import sys

MODULES = ("apply", "pairs", "reader", "runs", "samples", "superpixels", "train", "writer")


def test_docks_open_without_loading_torch() -> None:
    """Torch takes seconds to load; the viewer must not wait for it."""
    imports = "; ".join(f"import napari_medcl.gui.{name}" for name in MODULES)
    code = f"import sys; {imports}; sys.exit('torch is loaded' if 'torch' in sys.modules else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
