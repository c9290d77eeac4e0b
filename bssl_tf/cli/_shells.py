"""How shells split a line into words, and what they put in the place of which."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
)


@add_completion_class
class _Bash(BashComplete):
    """bash takes `larq_zoo:QuickNet`, `--name=value` and `user@host` for three words each, and replaces the last."""

    _kept = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        given, typed = super().get_completion_args()
        *args, whole = _joined([*given, typed]) if typed else [*_joined(given), ""]
        value = whole.partition("=")[2] if whole.startswith("--") else whole
        if whole != typed:
            self._kept = value[: value.rfind(":") + 1]
        return args, whole

    def format_completion(self, item: CompletionItem) -> str:
        if item.type == "plain":
            item = CompletionItem(item.value.removeprefix(self._kept))
        return super().format_completion(item)


class _WholeWords(ShellComplete):
    """For shells that replace all of `--name=value`, of which click hands back the value."""

    _option = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        args, typed = super().get_completion_args()
        self._option = typed[: typed.find("=") + 1] if typed.startswith("--") else ""
        return args, typed

    def format_completion(self, item: CompletionItem) -> str:
        if item.type == "plain":
            item = CompletionItem(self._option + item.value, help=item.help)
        return super().format_completion(item)


@add_completion_class
class _Zsh(_WholeWords, ZshComplete):
    pass


@add_completion_class
class _Fish(_WholeWords, FishComplete):
    pass


def _joined(given: Iterable[str]) -> Iterator[str]:
    """Words as they were typed: `:`, `=` and `@`, words of their own to bash, with what stands beside them."""
    word, glued = "", True
    for part in given:
        separator = set(part) <= set(":=@")
        if word and not (separator or glued):
            yield word
            word = ""
        word, glued = word + part, separator
    if word:
        yield word
