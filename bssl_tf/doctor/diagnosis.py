"""All that was found, and what it means for each command."""

from __future__ import annotations

from dataclasses import dataclass

from bssl_tf.doctor.machine import find_machine
from bssl_tf.doctor.needs import NEEDS
from bssl_tf.doctor.packages import Finding, find_keras, find_packages, find_python


@dataclass(frozen=True)
class CommandState:
    """Whether a command can run: not when `missing` names anything; `limited` says what it cannot do."""

    name: str
    missing: tuple[str, ...]
    limited: tuple[str, ...]

    @property
    def state(self) -> str:
        return "missing" if self.missing else "limited" if self.limited else "ready"


@dataclass(frozen=True)
class Diagnosis:
    """All findings, and what they mean for each command."""

    findings: tuple[Finding, ...]
    commands: tuple[CommandState, ...]

    @property
    def healthy(self) -> bool:
        """Whether all commands can run."""
        return not any(command.missing for command in self.commands)


def examine(*, deep: bool = False) -> Diagnosis:
    """Looks for all that the commands need.

    Args:
        deep: also import the large packages, each in a process of its own; takes up to a minute.
    """
    packages = find_packages(deep=deep)
    found = {
        one.name: one for one in (*packages.values(), find_python(), find_keras(), *find_machine(packages, deep=deep))
    }
    commands = []
    for name, needs in NEEDS.items():
        missing = tuple(one for one in needs.required if not found[one].there)
        # Several may cost the same; that is said once.
        limited = dict.fromkeys(said for one, said in needs.optional.items() if not found[one].there)
        commands.append(CommandState(name, missing, tuple(limited)))
    used = {one for needs in NEEDS.values() for one in (*needs.required, *needs.optional)}
    return Diagnosis(tuple(one for name, one in found.items() if name in used), tuple(commands))
