from __future__ import annotations

from metalmark.server import config_keys, configuration_reference


def test_every_key_is_on_the_page_with_its_variable_and_its_default() -> None:
    page = configuration_reference()
    for key in config_keys():
        assert f"| `{key.name}`<br>`{key.variable}` |" in page
    assert "| `auth.signup`<br>`METALMARK_AUTH_SIGNUP` | `invite` |" in page
    assert "| `auth.anonymous`<br>`METALMARK_AUTH_ANONYMOUS` | `false` |" in page
    assert "`127.0.0.0/8`, `::1/128`" in page
