"""The program that starts the current version of an install: a few lines of sh, which no update replaces.

It decides about a version on trial from the record alone, so that a version that cannot even start is taken back.
"""

from __future__ import annotations

import shlex
from pathlib import Path

DEFAULT_ROOT = Path("/opt/metalmark")
"""Folder of an install whose place nobody chose."""
LAUNCHER = "launch"
CURRENT = "current"
TRIAL = "trial"
"""One line: the version before, the version on trial, and ``new`` or ``started``."""
FAILED = "failed"
"""What `TRIAL` becomes when the version is taken back."""

_TEXT = """\
#!/bin/sh
# Starts the current version of Metalmark. Written by `metalmark runner install-service`.
set -u
root={root}

point_at() {{
    ln -sfn "versions/$1" "$root/{current}.partial" && mv -T "$root/{current}.partial" "$root/{current}"
}}

if [ -f "$root/{trial}" ]; then
    before='' version='' state=''
    read -r before version state <"$root/{trial}" || :
    if [ -z "$version" ] || [ "$(readlink "$root/{current}")" != "versions/$version" ]; then
        # It was never switched to, or somebody chose another one since.
        rm -f "$root/{trial}"
    elif [ "$state" = started ] && [ -x "$root/versions/$before/bin/metalmark" ]; then
        # It was started, and ended before a server had taken it: back to the one before.
        echo "metalmark: version $version did not prove itself; going back to $before" >&2
        point_at "$before" && mv -f "$root/{trial}" "$root/{failed}"
    else
        printf '%s %s started\\n' "$before" "$version" >"$root/{trial}.partial" &&
            mv -f "$root/{trial}.partial" "$root/{trial}"
    fi
fi
exec "$root/{current}/bin/metalmark" "$@"
"""


def launcher_text(root: Path) -> str:
    """Return the program for an install in a folder."""
    return _TEXT.format(root=shlex.quote(str(root)), current=CURRENT, trial=TRIAL, failed=FAILED)
