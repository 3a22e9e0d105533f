"""The one door to numba, and where it keeps what it compiled: under GLASSGATE_HOME.

Machine code is filed by the text of all kernels, so an edited one never meets the old code of
another, and clones of the project share theirs. Without numba this cannot be imported, and
`llama` does without.
"""

import hashlib
import os
from functools import partial
from pathlib import Path
from typing import Any

from numba import config as config_module
from numba import njit
from numba.core.caching import UserProvidedCacheLocator

config: Any = config_module
FOLDER = Path(__file__).parent
DIGEST = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(FOLDER.glob("*kernel*.py"))))


class KernelFolder(UserProvidedCacheLocator):
    """Finds numba's cache for the functions of this package; for others the usual places hold."""

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> Any:
        if Path(py_file).parent != FOLDER:
            return None
        return super().from_function(py_func, py_file)  # type: ignore[no-untyped-call]

    @classmethod
    def get_suitable_cache_subpath(cls, py_file: str) -> str:
        return DIGEST.hexdigest()[:16]


home = Path(os.environ.get("GLASSGATE_HOME") or Path.home() / ".cache" / "glassgate")
config.CACHE_DIR = str(home / "kernels")
config.CACHE_LOCATOR_CLASSES = (
    f"{__name__}.KernelFolder,InTreeCacheLocator,UserWideCacheLocator,IPythonCacheLocator"
)

# numba's decorator; a check for division by zero in a loop would keep it from being vectorised
kernel = partial(njit, error_model="numpy")


def is_kept(function_name: str) -> bool:
    """Whether machine code of this function is there already."""
    return any(Path(config.CACHE_DIR, DIGEST.hexdigest()[:16]).glob(f"*{function_name}*.nbi"))


def num_threads() -> int:
    """numba's own knob, NUMBA_NUM_THREADS; by default one for each core."""
    return int(config.NUMBA_NUM_THREADS)
