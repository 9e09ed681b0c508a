from __future__ import annotations

from pathlib import Path

import pytest

from metalmark.cli.secret_file import SecretFile
from metalmark.model import InputError, ProtocolError


def test_file_is_private_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with SecretFile(path) as file:
        assert path.stat().st_mode & 0o777 == 0o600
        view = file.keep({"uuid": "u", "key": "secret"})
    assert path.read_text() == "secret\n"
    assert (view.value, "secret" in repr(view)) == ({"uuid": "u"}, False)


@pytest.mark.parametrize("answer", [None, {}, {"key": 1}, ["key"]])
def test_answer_without_a_key_leaves_no_file(tmp_path: Path, answer: object) -> None:
    path = tmp_path / "key"
    with pytest.raises(ProtocolError), SecretFile(path) as file:
        file.keep(answer)  # type: ignore[arg-type]  # what a server should not send
    assert not path.exists()


def test_failed_request_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), SecretFile(tmp_path / "key"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_file_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for taken in (path, tmp_path / "link"):
        with pytest.raises(InputError, match="there is a file"), SecretFile(taken):
            pass
    assert path.read_text() == "old"
    assert not (tmp_path / "nowhere").exists()


def test_without_a_file_the_key_is_shown() -> None:
    with SecretFile(None) as file:
        assert ("key", "secret") in file.keep({"key": "secret"}).rows
