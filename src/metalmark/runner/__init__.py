"""Takes jobs, prepares, executes, reports, recovers."""
