"""``metalmark server``: the group of commands for those who run a server or ask one about itself."""

from __future__ import annotations

from metalmark.cli.remote import group_of
from metalmark.cli.server_admin import add_server_administration
from metalmark.cli.server_queries import add_server_queries
from metalmark.cli.server_up import add_server_running

app = group_of("Run a server, and ask one about itself.")

config_app = group_of("The configuration of a server.")
app.add_typer(config_app, name="config")

add_server_running(app, config_app)
add_server_queries(app, config_app)
add_server_administration(app)
