"""Videos, which are asked for in one exchange and looked at in others until they are done (OpenAI, xAI, OpenRouter).

None of them states tokens; xAI and OpenRouter state the cost once the video is done. Each look is an exchange of its
own with the same id.
"""

from spendwatch.wire.plain import PlainReader


class VideoReader(PlainReader):
    """Reads one exchange about a video."""

    wire_format = "video"
    operation_name = "video_generation"
