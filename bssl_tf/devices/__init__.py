"""Devices: reach one, put a bundle there, check it, time it, leave nothing behind.

`connection` says what every kind of connection can do; `local`, `ssh`, `qemu` and `adb` are the kinds; `devices_file`
turns a name or an address into one. A device with Python is worked with in a `session` with `bssl_tf_deploy.agent`,
which is sent there; `packages` is what it is brought, `measuring` what is done. A phone has no Python: `android` works
with it through adb and TensorFlow Lite's `benchmark_model`, which also gives an `operator_profile`.
"""
