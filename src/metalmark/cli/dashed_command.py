"""Commands that take another program's words after ``--``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, ClassVar

from typer.core import TyperCommand

from metalmark.cli.job_options import repeat_flags, split_words
from metalmark.model import InputError

if TYPE_CHECKING:
    from typer._click.core import Context  # only for a signature; Typer has no public name for it

AFTER_DASHES = "metalmark.after_dashes"
"""Where the words after ``--`` are, in the context's ``meta``."""


class DashedCommand(TyperCommand):
    """Understands ``-- CMD…`` and flags that take several words, which the parser below it does not."""

    several: ClassVar[frozenset[str]]
    """The flags that take several words."""
    only_one: ClassVar[tuple[str, str]]
    """The argument that is given once, and what is told of a second one."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Take the command after ``--`` out of the words, and write lists as repeated flags."""
        own, ctx.meta[AFTER_DASHES] = split_words(args)
        valued = {name for option in self.params if not getattr(option, "is_flag", False) for name in option.opts}
        # The parser's own words for too many arguments do not say what would be right.
        ctx.allow_extra_args = True
        rest = super().parse_args(ctx, repeat_flags(own, lists=self.several, valued=frozenset(valued) - self.several))
        if rest and not ctx.resilient_parsing:
            field, why = self.only_one
            raise InputError(field, rest[0], why, hint=f"put a command after --: -- {shlex.join(rest)}")
        return rest

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        """Name what may follow the flags."""
        return [*super().collect_usage_pieces(ctx), "[-- CMD...]"]
