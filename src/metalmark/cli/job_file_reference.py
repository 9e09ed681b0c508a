"""The reference of job files, made from the descriptions of their fields: ``docs/reference/job-file.md``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from metalmark.model import JobFile

if TYPE_CHECKING:
    from pydantic import BaseModel

_HEAD = """\
# Job files

Made by `scripts/write-reference`. A job file describes one benchmark in TOML: `metalmark run FILE.toml` has it done by
one of a server's runners, `metalmark runner run FILE.toml` by this machine. Every field may be left out; what it does
not say, the image, the spec or the server says. Flags beat the environment (`METALMARK_PROJECT`, `METALMARK_BRANCH`,
`METALMARK_TESTBED`), and that beats the file; `env` of both is taken together.

A field that there is not, or a value of another type, is an error that names it. "On a server" marks what `runner run`
has no use for and passes over; "not on a server" what `metalmark run` refuses. `metalmark run` needs no `[machine]`:
what a job gets of a runner's machine, its spec says.

```toml
image = "widgets:latest"
command = ["--quick"]
spec = "quiet-8"
iterations = 5
timeout = "10m"
outputs = ["/results/*.json"]

[env]
RAYON_NUM_THREADS = "4"

[thresholds.models.latency]
test = "t_test"
max_sample_size = 64
upper_boundary = 0.99

[machine]
vcpus = 4
memory = "8G"
```
"""


def job_file_reference() -> str:
    """Return ``docs/reference/job-file.md``."""
    return "\n".join((_HEAD, *_tables(JobFile, "", "Fields"))).rstrip("\n") + "\n"


def _tables(kind: type[BaseModel], prefix: str, title: str) -> Iterator[str]:
    sections: list[tuple[str, type[BaseModel]]] = []
    yield f"## {title}\n"
    yield "| field | type | meaning |"
    yield "|---|---|---|"
    for name, field in kind.model_fields.items():
        inner = _section(field.annotation)
        if inner is not None:
            place = f"{prefix}{name}"
            sections.append((place + (".MEASURE" if name == "models" else ""), inner))
        else:
            yield f"| `{name}` | {_type(kind, name)} | {field.description} |"
    yield ""
    for place, inner in sections:
        yield from _tables(inner, f"{place}.", f"`[{place}]`")


def _section(annotation: object) -> type[BaseModel] | None:
    """Return the section that a field is, or each value of it; None for a plain field."""
    from typing import get_args

    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _section(part)) is not None), None)


def _type(kind: type[BaseModel], name: str) -> str:
    """Return the type of a field in words, from its schema."""
    found = kind.model_json_schema()["properties"][name]
    found = next((part for part in found.get("anyOf", ()) if part.get("type") != "null"), found)
    if "$ref" in found or "enum" in found:
        values = found.get("enum") or kind.model_json_schema()["$defs"][found["$ref"].rpartition("/")[2]]["enum"]
        return ", ".join(f"`{value}`" for value in values)
    if name in _AMOUNTS:
        return "number or text"
    if found.get("format") == "date-time":
        return "date and time with offset"
    words = {"array": "list of texts", "object": "table of texts", "string": "text", "boolean": "true or false"}
    if found["type"] in words:
        bound = found.get("maxItems") or found.get("maxProperties")
        return words[found["type"]] + (f", {bound} at most" if bound else "")
    least, most = found.get("minimum"), found.get("maximum")
    noun = "whole number" if found["type"] == "integer" else "number"
    return noun if least is None else f"{noun}, {least} to {most}"


_AMOUNTS = frozenset(("timeout", "memory", "disk"))
