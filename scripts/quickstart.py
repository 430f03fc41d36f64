"""The main job, end to end: a server of its own, one video through the official `openai` client, its MP4's path."""

import signal
import sys
import time
import warnings
from pathlib import Path

from openai import OpenAI, OpenAIError
from openai.types import Video

from server.cli.local import own_server
from server.cli.outcome import Failure

FOLDER = Path(__file__).resolve().parent.parent / "videos"


def main(prompt: str) -> int:
    # The client marks its video calls as deprecated since the hosted service was shut down. This server is not.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=__name__)
    print("Starting the server ...", file=sys.stderr)
    with own_server() as url:
        client = OpenAI(base_url=f"{url}/v1", api_key="none-needed-on-loopback")
        video = client.videos.create(model="sora-2", prompt=prompt)
        print(f"{video.id}: {prompt}", file=sys.stderr)
        try:
            video = wait(client, video)
        except KeyboardInterrupt:
            client.videos.delete(video.id)
            raise
        if video.status != "completed":
            print(f"The video failed: {video.error.message if video.error else video.status}", file=sys.stderr)
            return 1
        FOLDER.mkdir(exist_ok=True)
        path = FOLDER / f"{video.id}.mp4"
        client.videos.download_content(video.id).write_to_file(path)
    print(path)
    return 0


def wait(client: OpenAI, video: Video) -> Video:
    shown = ""
    while video.status in {"queued", "in_progress"}:
        stage = (video.model_extra or {}).get("stage") or ""
        now = f"{video.status.replace('_', ' ')} {stage} {video.progress} %"
        if now != shown:
            print(f"  {now}", file=sys.stderr)
            shown = now
        time.sleep(0.5)
        video = client.videos.retrieve(video.id)
    return video


if __name__ == "__main__":
    # A terminated script leaves like an interrupted one: through the block that stops the server.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(130)
    except (Failure, OpenAIError) as error:
        sys.exit(f"quickstart: {error}")
