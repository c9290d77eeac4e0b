"""What is installed, what is missing for which command, and the next step. Imports nothing that may be missing.

| module | what |
|---|---|
| `needs` | what each command needs; the list to add to with a new command |
| `packages` | Python, and the packages in it with the versions that fit |
| `machine` | processor, runtime library, compiler, folders, programs |
| `diagnosis` | all of it together |
"""
