"""What is known of runs, as one record that is printed as tables, JSON, CSV, markdown, or one page of HTML.

| module | what |
|---|---|
| `fields` | values out of files that may hold anything |
| `benchmarks` | records of `bssl-tf bench`, in old and new forms |
| `runs` | a run folder: settings, curves, accuracy, bundles, benchmarks, and what is missing |
| `document` | what a report is made of: sections, tables, figures, grids of pictures |
| `sections` | from runs to sections |
| `training`, `speed` | the sections of training curves, and of bundles and their latency |
| `figures` | one function for each kind of plot, to SVG |
| `pictures` | views, nearest neighbours, map of the features; the only part that loads TensorFlow |
| `formats` | text, markdown, CSV, JSON |
| `page` | HTML |
"""
