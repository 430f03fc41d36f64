"""``homereel completion``: what makes a shell complete commands, options and their values."""

from __future__ import annotations

from argparse import SUPPRESS, Action, ArgumentParser, Namespace
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, cast

from server.cli.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


def configure(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("shell", choices=sorted(_SHELLS), help="whose completion to print")
    parser.epilog = (
        "bash: homereel completion bash > ~/.local/share/bash-completion/completions/homereel; "
        "fish: homereel completion fish > ~/.config/fish/completions/homereel.fish; "
        "zsh: homereel completion zsh > ~/.homereel.zsh, and source that in ~/.zshrc"
    )


def run(options: Namespace) -> int:
    """Print the script."""
    # Not when this module is loaded: main loads it.
    verbs: Mapping[str, str] = import_module("server.cli.main").VERBS
    print("\n".join(_SHELLS[options.shell]([_verb(name, summary) for name, summary in verbs.items()])))
    return Outcome.DONE


@dataclass(frozen=True)
class _Option:
    """An option of a verb: how it is written, what it is for, and what it can be if that is known."""

    flags: tuple[str, ...]
    summary: str
    choices: tuple[str, ...]
    takes_value: bool


@dataclass(frozen=True)
class _Verb:
    """A command: its options, and the words that it may be followed by."""

    name: str
    summary: str
    options: tuple[_Option, ...]
    words: tuple[str, ...]

    @property
    def flags(self) -> list[str]:
        """Every way to write one of its options."""
        return [flag for option in self.options for flag in option.flags]


def _verb(name: str, summary: str) -> _Verb:
    parser = ArgumentParser(prog=name)
    import_module(f"server.cli.{name}").configure(parser)
    actions = list(_actions(parser))
    words = {str(word): None for action in actions if not action.option_strings for word in action.choices or ()}
    options = {option.flags: option for option in map(_option, actions) if option.flags}
    return _Verb(name, summary, tuple(options.values()), tuple(words))


def _actions(parser: ArgumentParser) -> Iterator[Action]:
    """Yield what a parser knows, and what the parsers of its own commands do."""
    for action in parser._actions:
        if action.help != SUPPRESS:
            yield action
        if isinstance(_choices(action), dict):
            for inner in cast("dict[str, ArgumentParser]", _choices(action)).values():
                yield from _actions(inner)


def _choices(action: Action) -> object:
    """Return what an action can be: for commands, their parsers by name."""
    return action.choices


def _option(action: Action) -> _Option:
    choices = () if isinstance(_choices(action), dict) else tuple(map(str, action.choices or ()))
    return _Option(tuple(action.option_strings), (action.help or "").replace("%%", "%"), choices, action.nargs != 0)


def _bash(verbs: Sequence[_Verb]) -> Iterator[str]:
    yield "_homereel() {"
    yield '    local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" words=""'
    yield '    if [ "$COMP_CWORD" -eq 1 ]; then'
    yield f'        words="{" ".join(verb.name for verb in verbs)}"'
    yield "    else"
    yield '        case "${COMP_WORDS[1]} $before" in'
    for verb in verbs:
        for option in verb.options:
            if option.choices:
                patterns = "|".join(f'"{verb.name} {flag}"' for flag in option.flags)
                yield f'            {patterns}) words="{" ".join(option.choices)}" ;;'
    yield "            *)"
    yield '                case "${COMP_WORDS[1]}" in'
    for verb in verbs:
        yield f'                    {verb.name}) words="{" ".join((*verb.words, *verb.flags))}" ;;'
    yield "                esac ;;"
    yield "        esac"
    yield "    fi"
    yield '    COMPREPLY=($(compgen -W "$words" -- "$word"))'
    yield "}"
    # Where nothing of this fits, files do.
    yield "complete -o default -F _homereel homereel"


def _zsh(verbs: Sequence[_Verb]) -> Iterator[str]:
    yield "#compdef homereel"
    yield "_homereel() {"
    yield "    local -a verbs"
    yield "    verbs=("
    for verb in verbs:
        yield f"        {_quoted(f'{verb.name}:{verb.summary}')}"
    yield "    )"
    yield "    if (( CURRENT == 2 )); then _describe command verbs; return; fi"
    yield '    case "$words[2]" in'
    for verb in verbs:
        specs = [_quoted(spec) for option in verb.options for spec in _specs(option)]
        rest = f":word:({' '.join(verb.words)})" if verb.words else ":file:_files"
        yield f"        {verb.name}) _arguments {' '.join([*specs, _quoted('2' + rest), _quoted('*:file:_files')])} ;;"
    yield "    esac"
    yield "}"
    yield "if (( ! $+functions[compdef] )); then autoload -Uz compinit && compinit; fi"
    yield "compdef _homereel homereel"


def _specs(option: _Option) -> Iterator[str]:
    summary = option.summary.replace("[", "(").replace("]", ")").replace(":", " -")
    values = f":value:({' '.join(option.choices)})" if option.choices else ":value:_files"
    for flag in option.flags:
        yield f"{flag}[{summary}]{values if option.takes_value else ''}"


def _fish(verbs: Sequence[_Verb]) -> Iterator[str]:
    for verb in verbs:
        yield f"complete -c homereel -n __fish_use_subcommand -f -a {verb.name} -d {_quoted(verb.summary)}"
        seen = f"complete -c homereel -n {_quoted(f'__fish_seen_subcommand_from {verb.name}')}"
        if verb.words:
            yield f"{seen} -f -a {_quoted(' '.join(verb.words))}"
        for option in verb.options:
            flags = " ".join(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags)
            values = f" -x -a {_quoted(' '.join(option.choices))}" if option.choices else ""
            needs = " -r" if option.takes_value and not option.choices else ""
            yield f"{seen} {flags}{needs}{values} -d {_quoted(option.summary)}"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "").replace("'", "’") + "'"  # noqa: RUF001 - an apostrophe that ends no string


_SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
