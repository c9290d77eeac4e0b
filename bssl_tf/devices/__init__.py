"""Devices: reach one, put a bundle there, check it, time it, leave nothing behind.

A kind of device is a subclass of `Device` (`device`); `kinds` knows those of this package, `register` adds one, and the
entry point group `bssl_tf.devices` those of other packages. `devices_file` turns a name or an address into a device.

A device with Python (`python_device`: `local`, `ssh`, `qemu`) has a `connection`, and is worked with in a `session`
with `bssl_tf_deploy.agent`, which is sent there; `packages` is what it is brought, `installing` brings it, `measuring`
is what is done, and `services` keeps a bundle running there. Under qemu `instructions` are counted. A phone has no
Python: `android` works with it through `adb`, in a folder of the `phone`: by `android_benchmark_model`, TensorFlow
Lite's program, which also gives an `operator_profile`, or by `android_runner`, ours, with a `tflite_library`.
"""

from bssl_tf.devices.device import Device, DeviceSettings, Facts, Job
from bssl_tf.devices.devices_file import find_device, named_devices
from bssl_tf.devices.kinds import kinds, register, unregister

__all__ = [
    "Device",
    "DeviceSettings",
    "Facts",
    "Job",
    "find_device",
    "kinds",
    "named_devices",
    "register",
    "unregister",
]
