"""The settings of a run: frozen dataclasses, read strictly from TOML and written back with every default.

| module | contents |
|---|---|
| `data`, `training` | sections that all runs have |
| `runs` | a teacher's, a student's and a fine-tuned student's run, their config.toml |
| `imports` | what an imported teacher has in place of a config.toml |
| `reading` | from tables to dataclasses, strictly; ranges and names to choose from |
| `tables` | nested tables: TOML, merging, differences |
| `preset_files` | presets of the package (`presets/*.toml`) and of the user |
| `protocols` | names of the ways to measure features |

The table of a method is declared with the method, in `bssl_tf.methods`. A preset has a table for each command,
`[teacher]`, `[pretrain]`, `[finetune]` and `[compare]`, with a table for each section. The command line overrides the
preset.
"""

from bssl_tf.settings.data import DataConfig
from bssl_tf.settings.imports import Import, read_import, write_import
from bssl_tf.settings.preset_files import presets, read_preset
from bssl_tf.settings.protocols import FINE_TUNED, PROTOCOLS
from bssl_tf.settings.reading import (
    NotNegative,
    NotNegativeInt,
    Positive,
    PositiveInt,
    Share,
    Table,
    check_choice,
    check_known,
    read_settings,
)
from bssl_tf.settings.runs import (
    COMMANDS,
    FinetuneConfig,
    PretrainConfig,
    TeacherConfig,
    read_run_config,
    write_config,
)
from bssl_tf.settings.tables import differences, first_difference, merge, read_toml
from bssl_tf.settings.training import CODE, FLOAT_NETWORKS, AugmentationConfig, BackboneConfig, TrainingConfig

__all__ = [
    "CODE",
    "COMMANDS",
    "FINE_TUNED",
    "FLOAT_NETWORKS",
    "PROTOCOLS",
    "AugmentationConfig",
    "BackboneConfig",
    "DataConfig",
    "FinetuneConfig",
    "Import",
    "NotNegative",
    "NotNegativeInt",
    "Positive",
    "PositiveInt",
    "PretrainConfig",
    "Share",
    "Table",
    "TeacherConfig",
    "TrainingConfig",
    "check_choice",
    "check_known",
    "differences",
    "first_difference",
    "merge",
    "presets",
    "read_import",
    "read_preset",
    "read_run_config",
    "read_settings",
    "read_toml",
    "write_config",
    "write_import",
]
