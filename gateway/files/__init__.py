"""Files of a gateway: finished images, inputs and previews in a folder, a shared folder, or a bucket of S3."""
