"""What the client that openapi-python-client generates does with a gateway; its address is the argument."""

import importlib
import io
import json
import pkgutil
import sys

import mflux_gateway_client
from mflux_gateway_client import Client, models, types
from mflux_gateway_client.api.native import get_api_v1_jobs_job_id, post_api_v1_generate, post_api_v1_uploads
from mflux_gateway_client.api.sdapi import post_sdapi_v1_txt2img
from mflux_gateway_client.api.v1 import post_v1_images_edits, post_v1_images_generations

modules = [found.name for found in pkgutil.walk_packages(mflux_gateway_client.__path__, "mflux_gateway_client.")]
for name in modules:
    importlib.import_module(name)

url, picture = sys.argv[1:]
client = Client(base_url=url, timeout=60)


def file():
    with open(picture, "rb") as opened:
        return types.File(io.BytesIO(opened.read()), "picture.png", "image/png")


drawn = post_v1_images_generations.sync(client=client, body=models.Generation(prompt="a red circle", size="64x64"))
edited = post_v1_images_edits.sync(client=client, body=models.EditForm(prompt="a star", image=[file()]))
a1111 = post_sdapi_v1_txt2img.sync(client=client, body=models.Txt2Img(prompt="a star", width=64, height=64, steps=1))
body = models.NativeGenerateBody(prompt="a star", width=64, height=64)
submitted = post_api_v1_generate.sync(client=client, body=body)
uploaded = post_api_v1_uploads.sync(client=client, body=models.UploadForm(image=file()))
refused = post_v1_images_generations.sync(client=client, body=models.Generation(prompt="a", model="dreams"))
shown = get_api_v1_jobs_job_id.sync(submitted.job_id, client=client)
print(
    json.dumps(
        {
            "generation": bool(drawn.data[0].b64_json),
            "edit": bool(edited.data[0].b64_json),
            "txt2img": len(a1111.images),
            "job": shown.id == submitted.job_id,
            "upload": [uploaded.width, uploaded.height],
            "refused": refused.error.param,
        }
    )
)
