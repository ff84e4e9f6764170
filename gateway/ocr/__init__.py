"""OCR: text in images and PDFs. The `cpu` lane, its child process, and what a client may request.

Knows jobs and their store; no protocol and no HTTP. rapidocr, onnxruntime and pypdfium2 are imported in the child only.
"""
