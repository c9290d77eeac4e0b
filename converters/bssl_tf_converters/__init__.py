"""Model formats out: networks to Larq Compute Engine (LCE) flatbuffers, and the checks on what came out.

Nothing here prints or knows the bundle; `export.convert_student` is the way in, and its result is plain data.
"""
