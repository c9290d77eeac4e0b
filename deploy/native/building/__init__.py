"""How `build.py` makes the device runtime: targets, their compilers, objects, and checks of what came out."""
