"""The web application: routes, authentication, dispatch, the runner channel."""
