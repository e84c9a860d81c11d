"""Takes secrets out of text: known ones however they are written, and those that have a well-known shape."""
