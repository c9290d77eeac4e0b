"""Devices: reach one, put a bundle there, check it, time it, leave nothing behind.

`connection` says what every kind of connection can do; `local`, `ssh`, `qemu` and `adb` are the kinds; `devices_file`
turns a name or an address into one. A device with Python is worked with in a `session` with `bssl_tf_deploy.agent`,
which is sent there; `packages` is what it is brought, `measuring` what is done. Under qemu `instructions` are counted.
A phone has no Python: `android` works with it through adb, in a folder of the `phone`: by `android_benchmark_model`,
TensorFlow Lite's program, which also gives an `operator_profile`, or by `android_runner`, ours, with a
`tflite_library`.
"""
