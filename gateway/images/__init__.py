"""Image files: decoding, checking, writing, and the texts that they carry."""
