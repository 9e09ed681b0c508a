"""The configuration as a page of documentation and as a file to begin with, both made from the model."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from metalmark.server.config import ServerConfig
from metalmark.server.config_sources import Key, config_keys

_PREFACE = """\
# Server configuration

Made by `scripts/write-reference` from the program. A value comes from a flag of `metalmark server up` (`--bind`,
`--database`, `--storage`), else from the environment, else from the file that `--config` names (without it
`server.toml` in Metalmark's [configuration folder](../concepts/folders.md), if it is there), else it is the default.
`metalmark server config check` reads all of them and reports every error at once; unknown keys are errors.

In the environment the items of a list are separated by commas. Times are in seconds, sizes in bytes. Passwords belong
into files: that of PostgreSQL into `~/.pgpass` or a service file, that of the mail server into `smtp.password_file`; a
command line is visible to every user of the machine.

```toml
database = "postgresql://metalmark@db.example.com/metalmark"
storage = "s3://metalmark/large"

[server]
bind = "127.0.0.1:6610"
url = "https://metalmark.example.com/"
trusted_proxies = ["127.0.0.1/32"]
```
"""


def _default(key: Key) -> str:
    value = to_jsonable_python(key.field.get_default(call_default_factory=False))
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return ", ".join(f"`{item}`" for item in value)
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _rows(keys: list[Key]) -> Iterator[str]:
    yield "| key | default | meaning |\n|---|---|---|\n"
    for key in keys:
        yield f"| `{key.name}`<br>`{key.variable}` | {_default(key)} | {key.field.description} |\n"


def configuration_reference() -> str:
    """Return ``docs/reference/server-configuration.md``."""
    sections: dict[str, list[Key]] = {}
    for key in config_keys():
        sections.setdefault(key.name.partition(".")[0] if "." in key.name else "", []).append(key)
    parts = [_PREFACE, "\n", *_rows(sections.pop(""))]
    for name, keys in sections.items():
        model = ServerConfig.model_fields[name].annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        about = (model.__doc__ or "").strip()
        parts += [f"\n## {name}\n\n{about}\n\n", *_rows(keys)]
    return "".join(parts)
