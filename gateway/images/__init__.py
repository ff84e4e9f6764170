"""Image files: decoding, checking, writing, and the texts in them."""
