"""A grid of methods and seeds, run one after another: raw records, a table, a figure.

| module | what |
|---|---|
| `grid` | what a preset's `[compare]` table holds |
| `runner` | trains and evaluates what is missing, in processes of their own |
| `records` | the raw records; mean and interval over seeds |
| `report` | the markdown table and the figure, from the records alone |
"""
