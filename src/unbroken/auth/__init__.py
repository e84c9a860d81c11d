"""Who is asking, and whether the request may come from where it comes from."""
