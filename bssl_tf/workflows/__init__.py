"""Use cases: one a file, with its settings in and its result out; the command line and Python both call them."""
