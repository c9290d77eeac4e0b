"""JSON files of runs and bundles as they are after somebody's edit."""

from __future__ import annotations

import json
from typing import Any

from bssl_tf_deploy.files import CHECKSUM, EDITED


def edited(content: Any) -> str:
    """The text of such a file, which says that it has no checksum any more, unless it is not even an object."""
    return json.dumps({**content, CHECKSUM: EDITED} if isinstance(content, dict) else content)
