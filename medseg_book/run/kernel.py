"""The kernel that runs a chapter: this very Python, a private IPython folder, no open port."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from traitlets import default

# A Unix socket's path must fit into 104 bytes on macOS (108 on Linux).
LONGEST_SOCKET = 100
LOG = "kernel.log"
# What a kernel gets of our environment: enough for Python, its libraries and its devices. Keys and
# tokens that the runner has (of an object store, of a CI) are nothing to a chapter, and an output
# that shows the environment (a traceback, a careless print) cannot carry them away.
PASSED = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ",
    "TMPDIR", "TMP", "TEMP", "XDG_*_DIR", "XDG_*_HOME", "XDG_*_DIRS",
    "PYTHON*", "VIRTUAL_ENV", "CONDA_PREFIX*", "CONDA_DEFAULT_ENV", "CONDA_EXE", "CONDA_SHLVL",
    "LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_*",
    "OMP_*", "KMP_*", "GOMP_*", "MKL_*", "OPENBLAS_*", "BLIS_*", "NUMEXPR_*", "VECLIB_*",
    "CUDA_*", "CUBLAS_*", "CUDNN_*", "NVIDIA_*", "HIP_*", "ROCR_*", "TORCH*", "PYTORCH_*",
    "MPLCONFIGDIR", "JOBLIB_*", "JUPYTER_PATH", "JUPYTER_*_DIR", "MEDSEG_*",
    # Windows
    "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "APPDATA", "LOCALAPPDATA",
    "PROGRAMDATA", "PROGRAMFILES*", "USERNAME", "USERPROFILE", "HOMEDRIVE", "HOMEPATH",
    "NUMBER_OF_PROCESSORS", "PROCESSOR_*", "OS",
)  # fmt: skip


def manager_class(
    folder: Path, cwd: Path, on_start: Callable[[int], None]
) -> type[AsyncKernelManager]:
    """A kernel manager for one run; `on_start` gets the kernel's process id.

    An empty list of kernel folders leaves Jupyter its native fallback, the Python that runs us: no
    kernel spec need be installed, and one that points to another Python does no harm. Sockets in
    `folder` instead of TCP ports, so that runs side by side cannot race for a port.
    """

    class ThisPython(AsyncKernelManager):
        @default("kernel_spec_manager")
        def _native(self) -> KernelSpecManager:
            return KernelSpecManager(kernel_dirs=[], parent=self)

        @default("transport")
        def _transport(self) -> str:
            socket = f"{folder / 'kernel.json'}-ipc-5"
            short = len(os.fsencode(socket)) <= LONGEST_SOCKET
            return "ipc" if short and sys.platform != "win32" else "tcp"

        @default("connection_file")
        def _connection_file(self) -> str:
            return str(folder / "kernel.json")

        async def _async_start_kernel(self, **kw: Any) -> None:
            kw["cwd"] = str(cwd)
            kw["env"] = kernel_environment(folder)
            # What the process itself says (a crash in C code) belongs to no cell.
            with (folder / LOG).open("wb") as log:
                await super()._async_start_kernel(**kw, stdout=log, stderr=log)
            on_start(self.provisioner.pid)

        start_kernel = _async_start_kernel

    return ThisPython


def kernel_environment(folder: Path) -> dict[str, str]:
    """What of our environment is PASSED, a private IPYTHONDIR, figures inline, debugger silent."""
    return {
        **{k: v for k, v in os.environ.items() if any(fnmatchcase(k, p) for p in PASSED)},
        "IPYTHONDIR": str(folder / "ipython"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def last_words(folder: Path) -> str:
    """The end of what the kernel's process wrote past the notebook."""
    path = folder / LOG
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return "\n".join(text.strip().splitlines()[-5:])
