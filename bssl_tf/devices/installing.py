"""Packages put into the folder of a session."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from bssl_tf.devices.packages import Packages
from bssl_tf.devices.session import Session
from bssl_tf.errors import DeviceError

# Beyond what is put there: for what the work itself writes.
_SPARE_BYTES = 8 << 20
log = logging.getLogger(__name__)


def install(name: str, session: Session, packages: Packages, opened: Mapping[str, Any]) -> None:
    """Puts packages there, under the name of their environment, unless they are there.

    Args:
        name: the device's, for messages.
        session: with its folder open.
        packages: what to bring.
        opened: what the agent answered to `open`.

    Raises:
        DeviceError: there is no room, or the device's own pip fails.
        BundleError: a file arrived changed.
    """
    if packages.environment in opened["environments"]:
        return
    contents = {
        file: content if isinstance(content, bytes) else content.read_bytes()
        for file, content in packages.archives.items()
    }
    check_room(name, opened["free_bytes"], packages.unpacked_bytes + sum(map(len, contents.values())))
    log.info("%s: installing %d packages, %d MB", name, len(contents), packages.unpacked_bytes >> 20)
    for file, content in contents.items():
        session.put(f"packages/{file}", content)
    request = {"environment": packages.environment, "archives": [f"packages/{file}" for file in contents]}
    if packages.requirements:
        session.ask({"do": "pip", "requirements": packages.requirements} | request, timeout_s=1800)
    else:
        session.ask({"do": "install"} | request, timeout_s=600)


def check_room(name: str, free_bytes: int, needed_bytes: int) -> None:
    """Raises `DeviceError` where the disk of the device called `name` has less room than is needed."""
    if free_bytes < needed_bytes + _SPARE_BYTES:
        raise DeviceError(
            f"the disk of {name} has {free_bytes >> 20} MB free, but {(needed_bytes + _SPARE_BYTES) >> 20} MB are "
            "needed",
            "Free space there, or name another folder with --remote-dir",
        )
