"""Completion of `cadence` in bash: `eval "$(cadence -sc install=bash)"`, with the flag that Hydra has for it.

Hydra's own script completes `python FILE` and commands of one word, and not `cadence train`.
"""

import os
from collections.abc import Sequence

SCRIPT = """\
_cadence() {
    local found
    found=$(COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" "$1" -sc query=bash 2> /dev/null)
    COMPREPLY=($(compgen -o default -W "$found" -- "$2"))
    if [ "$COMP_CWORD" = 1 ] && [ "${#COMPREPLY[@]}" = 1 ]; then COMPREPLY=("${COMPREPLY[0]} "); fi
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _cadence cadence"""
OF_CONFIG = ("train", "plan", "range-test", "tune", "noise-scale")
"""The commands that take overrides."""


def complete(words: Sequence[str], commands: Sequence[str]) -> bool:
    """Answer `cadence -sc WORDS`; whether Hydra shall complete the line that is then in `COMP_LINE`.

    `install=bash` prints what bash evaluates, and `query=bash` the commands that the line up to the cursor may mean.
    """
    if list(words) == ["install=bash"]:
        print(SCRIPT)
    if list(words) != ["query=bash"]:
        return False
    line = os.environ.get("COMP_LINE", "")
    _, _, typed = line[: int(os.environ.get("COMP_POINT", len(line)))].lstrip().partition(" ")
    name, space, settings = typed.lstrip().partition(" ")
    if not space:
        print("\n".join(command for command in commands if command.startswith(name)))
        return False
    line = f"cadence {settings.lstrip()}"
    os.environ |= {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    return name in OF_CONFIG
