"""Model formats out: networks to Larq Compute Engine (LCE) flatbuffers, the checks on what came out, and what any
.tflite file holds and costs.

Nothing here prints or knows the bundle; `lce.export.convert_model` is the way in, and its result is plain data.
"""

import logging

logging.getLogger(__name__).addHandler(logging.NullHandler())
