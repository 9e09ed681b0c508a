"""The command as a process: pages, versions, codes, and what is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"httpx", "pydantic", "rich", "anyio", "structlog", "qemu", "zstandard", "lz4", "asyncio"}

PARSER = {"structlog", "pydantic", "rich", "asyncio"}
"""What option parsing and logging bring in by themselves."""


def metalmark(*words: str, home: Path | None = None, code: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "102", **({"METALMARK_HOME": str(home)} if home else {})}
    start = f"import sys; sys.argv = ['metalmark', *{list(words)!r}]; from metalmark.cli.main import main; main()"
    command = [sys.executable, "-c", code or start]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


def test_generated_reference_is_the_programs_own() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/write-reference"), "--check"],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip
    assert done.returncode == 0, f"run scripts/write-reference; stale: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("words", [("--help",), ("runner", "run", "--help")])
def test_page_that_is_shown_at_once_is_what_the_parser_says(words: tuple[str, ...]) -> None:
    quick = metalmark(*words)
    slow = metalmark(code=f"from metalmark.cli.application import run_application; run_application({list(words)!r})")
    assert quick.returncode == slow.returncode == 0
    assert quick.stdout == slow.stdout


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        ((), set()),
        (("--version",), set()),
        (("--help",), set()),
        (("runner", "run", "--help"), set()),
        (("runner", "--help"), PARSER),
        (("runner", "run", "--memory", "many", "x"), PARSER),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_nothing_heavy_is_imported(words: tuple[str, ...], allowed: set[str]) -> None:
    code = f"""
import sys
sys.argv = ['metalmark', *{list(words)!r}]
from metalmark.cli.main import main
try:
    main()
except SystemExit:
    pass
print('MODULES', *sorted({{name.partition('.')[0] for name in sys.modules}}))
"""
    if not words:
        code = code.replace("try:\n    main()\nexcept SystemExit:\n    pass\n", "")
    done = metalmark(code=code)
    [line] = [line for line in done.stdout.splitlines() if line.startswith("MODULES")]
    assert not (HEAVY - allowed) & set(line.split())


def test_version_goes_to_stdout() -> None:
    done = metalmark("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("metalmark ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("runner", "run"), "IMAGE"),
        (("runner", "run", "x", "--memory", "1"), "--memory"),
        (("runner", "run", "./x", "--nonsense"), "--nonsense"),
        (("runner", "run", "./x", "--cmd"), "--cmd"),
        (("runner", "run", "a", "b"), "b"),
        (("runner", "run", "a", "--image", "b"), "--image"),
        (("runner", "run", "not a reference"), "not a reference"),
        (("runner", "run", "./x", "--token-file", "/nonexistent"), None),
        (("nonsense",), "nonsense"),
        (("job", "list", "p", "--status", "nosuch"), "'--status': 'nosuch' is not one of 'pending'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage_exits_2_names_the_word_and_leaves_nothing(
    tmp_path: Path, words: tuple[str, ...], told: str | None
) -> None:
    home = tmp_path / "home"
    done = metalmark(*words, home=home)
    if told is None:
        assert done.returncode in {2, 125}
        return
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not home.exists()


@pytest.mark.parametrize(
    ("image", "told"),
    [("./no-such-layout", "no-such-layout"), ("oci:/no/such/layout", "/no/such/layout")],
)
def test_image_that_is_not_there_is_a_fault_with_its_path(tmp_path: Path, image: str, told: str) -> None:
    done = metalmark("runner", "run", image, home=tmp_path / "home")
    assert (done.returncode, done.stdout) == (125, "")
    assert told in done.stderr
    assert "hint:" in done.stderr
    assert not (tmp_path / "home").exists()


def test_folder_that_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    done = metalmark("runner", "run", str(tmp_path / "folder"), home=tmp_path / "home")
    assert done.returncode == 125
    assert "is not an image" in done.stderr


def test_no_iterations_run_nothing(tmp_path: Path) -> None:
    done = metalmark("runner", "run", "./no-such-layout", "--iter", "0", "--json", home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["iterations"], result["exit_code"], result["image"]) == ([], 0, None)
    schema = json.loads((ROOT / "docs/reference/run-result.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(result, schema)


def test_save_refuses_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    done = metalmark("runner", "run", "./x", "--save", str(tmp_path / "full"), home=tmp_path / "home")
    assert done.returncode == 2
    assert "--save" in done.stderr


def test_unknown_log_level_is_told() -> None:
    done = metalmark(
        code="""
import os, sys
os.environ['METALMARK_LOG'] = 'loud'
sys.argv = ['metalmark', 'runner', 'run', 'x']
from metalmark.cli.main import main
main()
"""
    )
    assert done.returncode == 2
    assert "METALMARK_LOG is 'loud'" in done.stderr
