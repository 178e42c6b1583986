"""``detzoo completion bash|zsh``."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from absl import flags

from detzoo.cli.flags import flags_of
from detzoo.config.library import config_names, sweep_names
from detzoo.config.names import suggestion
from detzoo.errors import UsageError

SUMMARY = "Print a script that completes commands, flags and names of configs in bash or zsh."
DESCRIPTION = """
Add a line to ~/.bashrc or ~/.zshrc, and open a new terminal:

    source <(detzoo completion bash)
    source <(detzoo completion zsh)

The script completes commands, flags, the values of flags, and names of configs; elsewhere files. It starts no Python.
"""
POSITIONAL = ("SHELL",)

SHELLS = ("bash", "zsh")
_EVERYWHERE = "--help --quiet --debug"
_CONFIGS, _SWEEPS = "$configs", "$sweeps"
# Names that are completed next to files, as values of flags and as the positional arguments of commands.
_NAMES_OF_FLAGS = {"pipeline_config_path": _CONFIGS, "model": _CONFIGS, "sweep_config": _SWEEPS}
_NAMES_OF_COMMANDS = {
    "config check": _CONFIGS,
    "config show": _CONFIGS,
    "config diff": _CONFIGS,
    "models copy": _CONFIGS,
    "completion": " ".join(SHELLS),
}

_SCRIPT = """\
# Completes `detzoo`, version {version}. Written by `detzoo completion {shell}`.
{start}_detzoo() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} prefix= verb= command= word i
  local choices= switches= subcommands= names= values= files=1
  local configs="{configs}"
  local sweeps="{sweeps}"
  if [[ $cur == "=" ]]; then  # bash reads --flag=value as three words
    cur=
  elif [[ $before == "=" ]]; then
    before=${{COMP_WORDS[COMP_CWORD-2]}}
  elif [[ $cur == --*=* ]]; then  # zsh as one
    before=${{cur%%=*}} prefix=${{cur%%=*}}= cur=${{cur#*=}}
  fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${{COMP_WORDS[i]}}
    case "$verb $word" in
{verbs}
    esac
  done
  case $command in
{commands}
  esac
  if [[ $before == --* && $before != --help && " $switches {everywhere} " != *" $before "* ]]; then
    case "$command $before" in
{values}
    esac
    choices="$names $values"
    if [[ -n $values ]]; then files=; fi
  elif [[ $cur == -* ]]; then
    choices="$choices $switches {everywhere}" files=
  else
    choices="$subcommands $names"
    if [[ -n $subcommands ]]; then files=; fi
  fi
  COMPREPLY=($(compgen -W "$choices" -- "$cur"))
  if [[ -n $files ]]; then
    local IFS=$'\\n'
    COMPREPLY+=($(compgen -f -- "$cur"))
    compopt -o filenames 2>/dev/null
  fi
  if [[ -n $prefix ]]; then COMPREPLY=("${{COMPREPLY[@]/#/$prefix}}"); fi
}}
complete -o default -F _detzoo detzoo
"""
_ZSH_START = """\
whence compdef >/dev/null || { autoload -Uz compinit && compinit; }
autoload -Uz bashcompinit && bashcompinit
"""


def run(flag_values: flags.FlagValues) -> None:
    """Prints the script."""
    [shell] = flag_values.positional
    if shell not in SHELLS:
        raise UsageError(f"there is no completion for '{shell}'{suggestion(shell, SHELLS)}")
    print(script(shell), end="")


def script(shell: str) -> str:
    """Returns the script for a shell of ``SHELLS``."""
    from detzoo import __version__
    from detzoo.cli.main import VERBS

    modules = {verb: importlib.import_module(f"detzoo.cli.{verb}") for verb in VERBS}
    tables = dict(_commands(modules))
    nested = [name for name in tables if " " in name]
    chosen = [f'      " {verb}") verb={verb} command={verb};;' for verb in modules]
    chosen += [f'      "{name}") command="{name}";;' for name in nested]
    first = f'    "") subcommands="{" ".join(modules)}" choices=--version;;'
    return _SCRIPT.format(
        version=__version__,
        shell=shell,
        start=_ZSH_START if shell == "zsh" else "",
        configs=" ".join(config_names()),
        sweeps=" ".join(sweep_names()),
        everywhere=_EVERYWHERE,
        verbs="\n".join(chosen),
        commands="\n".join([first, *(_flags_case(name, *table) for name, table in tables.items())]),
        values="\n".join(line for name, (flags, _) in tables.items() for line in _value_cases(name, flags)),
    )


def _commands(modules: Mapping[str, Any]) -> Iterator[tuple[str, tuple[list[flags.Flag], list[str]]]]:
    """Yields the name of each command and subcommand, its flags, and the names of its subcommands."""
    for verb, module in modules.items():
        subcommands = getattr(module, "SUBCOMMANDS", {})
        yield verb, (_flags_of(verb, module) if hasattr(module, "run") else [], list(subcommands))
        for name, part in subcommands.items():
            yield f"{verb} {name}", (_flags_of(f"{verb} {name}", part), [])


def _flags_of(name: str, command: Any) -> list[flags.Flag]:
    return list(flags_of(name, command)._flags().values())


def _flags_case(name: str, found: list[flags.Flag], subcommands: list[str]) -> str:
    switches = " ".join(f"--{flag.name} --no{flag.name}" for flag in found if flag.boolean)
    words = " ".join(f"--{flag.name}" for flag in found if not flag.boolean)
    names = _NAMES_OF_COMMANDS.get(name, "")
    values = {"choices": words, "switches": switches, "subcommands": " ".join(subcommands), "names": names}
    return f'    "{name}") ' + " ".join(f'{key}="{value}"' for key, value in values.items() if value) + ";;"


def _value_cases(name: str, found: list[flags.Flag]) -> Iterator[str]:
    for flag in found:
        if isinstance(flag.parser, flags.EnumParser):
            yield f'      "{name} --{flag.name}") values="{" ".join(flag.parser.enum_values)}";;'
        elif flag.name in _NAMES_OF_FLAGS:
            yield f'      "{name} --{flag.name}") names="{_NAMES_OF_FLAGS[flag.name]}";;'
