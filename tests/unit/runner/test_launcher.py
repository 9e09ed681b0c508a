"""The launcher's text; what it does is tried in tests/integration/runner/test_launcher.py."""

from pathlib import Path

from metalmark.runner.launcher import launcher_text


def test_the_folder_is_one_word_whatever_its_name() -> None:
    assert "\nroot='/srv/a b$(reboot)'\n" in launcher_text(Path("/srv/a b$(reboot)"))


def test_it_ends_by_becoming_the_current_version() -> None:
    assert launcher_text(Path("/opt/metalmark")).rstrip().endswith('exec "$root/current/bin/metalmark" "$@"')
