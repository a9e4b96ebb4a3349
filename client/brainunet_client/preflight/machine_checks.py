"""What the machine can give: space on the disk of the client's folder, and memory."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Final

from brainunet.memory import available_memory
from brainunet_client.preflight.context import Context
from brainunet_client.preflight.report import Check

GB: Final = 1e9
DISK_FAIL_GB: Final = 1.0
DISK_WARN_GB: Final = 5.0
MEMORY_FAIL_GB: Final = 2.0
MEMORY_WARN_GB: Final = 4.0


def disk(context: Context) -> Check:
    folder = context.home.path
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
            file.flush()
    except OSError as error:
        said = f"the folder {folder} can't be written: {error.strerror or error}"
        return Check("disk", "FAIL", said, "free space, ask for the right to write there, or name another folder by --home DIR")
    return judge_disk(shutil.disk_usage(folder).free, folder)


def judge_disk(free_bytes: int, folder: Path) -> Check:
    said = f"{free_bytes / GB:.1f} GB free in {folder}"
    remedy = "free space, or name a folder on another disk by --home DIR: prepared cases take about 20 MB each"
    if free_bytes < DISK_FAIL_GB * GB:
        return Check("disk", "FAIL", f"{said}, less than {DISK_FAIL_GB:g} GB", remedy)
    if free_bytes < DISK_WARN_GB * GB:
        return Check("disk", "WARN", f"{said}, less than {DISK_WARN_GB:g} GB", remedy)
    return Check("disk", "PASS", said)


def memory(context: Context) -> Check:
    available = available_memory()
    if available is None:
        return Check("memory", "WARN", "this system does not say how much is available", f"see that {MEMORY_WARN_GB:g} GB are")
    return judge_memory(available, context.settings().memory_gb)


def judge_memory(available_bytes: int, allowed_gb: float | None) -> Check:
    """``allowed_gb`` is what site.toml leaves to training; None sets no limit."""
    available_gb = available_bytes / GB
    said = f"{available_gb:.1f} GB available"
    remedy = "close other programs, or use a machine (or a container's limit) with more memory"
    if allowed_gb is not None and allowed_gb < available_gb:
        available_gb, said = allowed_gb, f"{said}, of which site.toml allows {allowed_gb:g} GB"
        remedy = "raise memory_gb in site.toml"
    if available_gb < MEMORY_FAIL_GB:
        return Check("memory", "FAIL", f"{said}, less than {MEMORY_FAIL_GB:g} GB", remedy)
    if available_gb < MEMORY_WARN_GB:
        return Check("memory", "WARN", f"{said}, less than {MEMORY_WARN_GB:g} GB", remedy)
    return Check("memory", "PASS", said)
