"""Text in pictures and PDFs: the `cpu` lane, its child process, and what a client may ask of it.

Knows jobs and their store; no protocol and no HTTP. rapidocr, onnxruntime and pypdfium2 are imported in the child only.
"""
