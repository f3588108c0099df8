"""A server: models behind a REST API, and a page to look at what they find."""
