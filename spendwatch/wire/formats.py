"""Which wire format an exchange speaks: the table of formats, and recognise().

Decided by host, path and body shape, never by the program that calls. A known provider's host is enough together with
a path; on an unknown host (a gateway, a server of one's own) the body must have the format's shape as well. Traffic
that is no LLM's costs one look at the path's last part.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from spendwatch.wire import providers
from spendwatch.wire.aleph_alpha import AlephAlphaReader
from spendwatch.wire.anthropic_complete import CompleteReader
from spendwatch.wire.anthropic_messages import MessagesReader
from spendwatch.wire.bedrock_converse import ConverseReader
from spendwatch.wire.bedrock_invoke import InvokeReader
from spendwatch.wire.cloudflare import MARKS as WORKERS_MARKS
from spendwatch.wire.cloudflare import WorkersReader
from spendwatch.wire.cohere_chat import CohereChatReader
from spendwatch.wire.cohere_embed import CohereEmbedReader
from spendwatch.wire.cohere_v1 import CohereGenerateReader, CohereV1ChatReader
from spendwatch.wire.dashscope import DashScopeReader
from spendwatch.wire.deepgram import DeepgramListenReader, DeepgramSpeakReader
from spendwatch.wire.gemini_embed import GeminiEmbedReader, GeminiPredictReader, GeminiVideoReader
from spendwatch.wire.gemini_generate import GenerateReader
from spendwatch.wire.gemini_interactions import InteractionsReader
from spendwatch.wire.huggingface import InferenceReader
from spendwatch.wire.llamacpp import LlamaCompletionReader
from spendwatch.wire.lmstudio import LMStudioReader
from spendwatch.wire.mistral_conversations import ConversationsReader
from spendwatch.wire.not_inference import BatchReader, CountTokensReader
from spendwatch.wire.ocr import OcrReader
from spendwatch.wire.ollama import OllamaChatReader, OllamaEmbedReader, OllamaGenerateReader
from spendwatch.wire.openai_assistants import AssistantsRunReader
from spendwatch.wire.openai_chat import ChatReader, CompletionsReader
from spendwatch.wire.openai_decisions import DecisionsReader
from spendwatch.wire.openai_embeddings import EmbeddingsReader
from spendwatch.wire.openai_images import ImagesReader
from spendwatch.wire.openai_moderations import ModerationsReader
from spendwatch.wire.openai_responses import ResponsesReader
from spendwatch.wire.openai_speech import SpeechReader
from spendwatch.wire.openai_transcription import TranscriptionReader
from spendwatch.wire.reader import Reader, WireFormat
from spendwatch.wire.replicate import ReplicateReader
from spendwatch.wire.reply import Request
from spendwatch.wire.rerank import RerankReader
from spendwatch.wire.video import VideoReader
from spendwatch.wire.watsonx import WatsonxChatReader, WatsonxEmbedReader, WatsonxReader, WatsonxRerankReader

_LOOK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Kind:
    """A wire format and what marks its requests.

    path: how the path ends. marks: what a body to an unknown host must hold; header: a request header that settles it
    as well. hosts: only at these providers, () for any. within: a further part of the path that must be there.
    shaped: the body must hold the marks at a known provider too.
    """

    reader: type[Reader]
    path: str
    marks: tuple[bytes, ...] = ()
    header: str | None = None
    hosts: tuple[str, ...] = ()
    within: str = ""
    shaped: bool = False


_OPENAI = ("openai", "azure.ai.openai", "azure.ai.inference")
_SERVED = "/serving-endpoints/"
"""Databricks: each served model has one path, and its body says what is asked for."""
_MISTRAL = ("mistral_ai",)
_GOOGLE_MODELS = ("/models/", "/endpoints/", "/tunedModels/")
_VIDEOS = (*_OPENAI, "x_ai", providers.OPENROUTER)

# The last part of the path -> the formats that may stand there, the more particular one first.
_KINDS: dict[str, tuple[Kind, ...]] = {
    "completions": (
        Kind(ChatReader, "/chat/completions", (b'"messages"',)),
        Kind(ChatReader, "/agents/completions", hosts=("mistral_ai",)),
        Kind(CompletionsReader, "/completions", (b'"prompt"', b'"model"')),
    ),
    "chat": (
        Kind(ChatReader, "/v1/chat", hosts=("writer",)),
        Kind(CohereV1ChatReader, "/v1/chat", hosts=("cohere",)),
        Kind(WatsonxChatReader, "/text/chat", (b'"messages"', b'"model_id"'), within="/ml/"),
        Kind(LMStudioReader, "/api/v1/chat", (b'"input"', b'"model"')),
        Kind(CohereChatReader, "/v2/chat", (b'"messages"', b'"model"')),
        Kind(OllamaChatReader, "/api/chat", (b'"messages"', b'"model"')),
    ),
    "chat_stream": (Kind(WatsonxChatReader, "/text/chat_stream", (b'"messages"', b'"model_id"'), within="/ml/"),),
    "generate": (
        Kind(OllamaGenerateReader, "/api/generate", (b'"prompt"', b'"model"')),
        Kind(CohereGenerateReader, "/v1/generate", hosts=("cohere",)),
        Kind(InferenceReader, "/generate", (b'"inputs"', b'"parameters"')),
    ),
    "generate_stream": (Kind(InferenceReader, "/generate_stream", (b'"inputs"', b'"parameters"')),),
    "embed": (
        Kind(OllamaEmbedReader, "/api/embed", (b'"input"', b'"model"')),
        Kind(CohereEmbedReader, "/v1/embed", (b'"texts"', b'"model"')),
        Kind(CohereEmbedReader, "/v2/embed", (b'"input_type"', b'"model"')),
    ),
    "responses": (Kind(ResponsesReader, "/responses", (b'"input"', b'"model"')),),
    "compact": (Kind(ResponsesReader, "/responses/compact", (b'"input"', b'"model"')),),
    "embeddings": (
        Kind(OllamaEmbedReader, "/api/embeddings", (b'"prompt"', b'"model"')),
        Kind(WatsonxEmbedReader, "/text/embeddings", (b'"inputs"', b'"model_id"'), within="/ml/"),
        Kind(EmbeddingsReader, "/embeddings", (b'"input"', b'"model"')),
    ),
    "multimodalembeddings": (Kind(EmbeddingsReader, "/multimodalembeddings", hosts=("voyageai",)),),
    "contextualizedembeddings": (Kind(EmbeddingsReader, "/contextualizedembeddings", hosts=("voyageai",)),),
    "rerank": (
        Kind(WatsonxRerankReader, "/text/rerank", (b'"inputs"', b'"model_id"'), within="/ml/"),
        Kind(RerankReader, "/rerank", (b'"query"', b'"documents"')),
    ),
    "images": (Kind(ImagesReader, "/images", hosts=(providers.OPENROUTER,)),),
    "generations": (
        Kind(ImagesReader, "/images/generations", (b'"prompt"', b'"model"')),
        Kind(VideoReader, "/videos/generations", hosts=_VIDEOS),
    ),
    "edits": (
        Kind(ImagesReader, "/images/edits", (b"prompt", b"model")),
        Kind(VideoReader, "/videos/edits", hosts=_VIDEOS),
        Kind(CompletionsReader, "/v1/edits", hosts=_OPENAI),
    ),
    "variations": (Kind(ImagesReader, "/images/variations", hosts=_OPENAI),),
    "transcriptions": (Kind(TranscriptionReader, "/audio/transcriptions", (b"file",)),),
    "translations": (Kind(TranscriptionReader, "/audio/translations", (b"file",)),),
    "stt": (Kind(TranscriptionReader, "/v1/stt", hosts=("x_ai",)),),
    "speech": (Kind(SpeechReader, "/audio/speech", (b'"input"', b'"voice"')),),
    "decisions": (Kind(DecisionsReader, "/decisions", (b'"input"', b'"questions"', b'"model"')),),
    "moderations": (Kind(ModerationsReader, "/moderations", (b'"input"', b'"model"')),),
    "messages": (Kind(MessagesReader, "/messages", (b'"messages"', b'"max_tokens"'), header="anthropic-version"),),
    "rawPredict": (
        Kind(CountTokensReader, "/count-tokens:rawPredict", (b'"anthropic_version"',), within="/anthropic/"),
        Kind(MessagesReader, ":rawPredict", (b'"anthropic_version"',), within="/anthropic/"),
        Kind(ChatReader, ":rawPredict", (b'"messages"', b'"model"'), within="/publishers/"),
    ),
    "streamRawPredict": (
        Kind(MessagesReader, ":streamRawPredict", (b'"anthropic_version"',), within="/anthropic/"),
        Kind(ChatReader, ":streamRawPredict", (b'"messages"', b'"model"'), within="/publishers/"),
    ),
    "generateContent": tuple(
        Kind(GenerateReader, ":generateContent", (b'"contents"',), within=within) for within in _GOOGLE_MODELS
    ),
    "streamGenerateContent": tuple(
        Kind(GenerateReader, ":streamGenerateContent", (b'"contents"',), within=within) for within in _GOOGLE_MODELS
    ),
    "countTokens": (Kind(CountTokensReader, ":countTokens", (b'"contents"',), within="/models/"),),
    "batchGenerateContent": (Kind(BatchReader, ":batchGenerateContent", (b'"batch"',), within="/models/"),),
    "embedContent": (Kind(GeminiEmbedReader, ":embedContent", (b'"content"',), within="/models/"),),
    "batchEmbedContents": (Kind(GeminiEmbedReader, ":batchEmbedContents", (b'"requests"',), within="/models/"),),
    "predict": (Kind(GeminiPredictReader, ":predict", (b'"instances"',), within="/models/"),),
    "predictLongRunning": (Kind(GeminiVideoReader, ":predictLongRunning", (b'"instances"',), within="/models/"),),
    "completion": (Kind(LlamaCompletionReader, "/completion", (b'"prompt"', b'"n_predict"')),),
    "infill": (Kind(LlamaCompletionReader, "/infill", (b'"input_prefix"', b'"input_suffix"')),),
    "conversations": (Kind(ConversationsReader, "/v1/conversations", hosts=_MISTRAL),),
    "restart": (Kind(ConversationsReader, "/restart", hosts=_MISTRAL, within="/conversations/"),),
    "ocr": (Kind(OcrReader, "/v1/ocr", (b'"document"', b'"model"'), hosts=_MISTRAL),),
    "interactions": (Kind(InteractionsReader, "/interactions", (b'"input"', b'"model"')),),
    "complete": (
        Kind(CompleteReader, "/v1/complete", (b'"prompt"', b'"max_tokens_to_sample"')),
        Kind(AlephAlphaReader, "/complete", (b'"prompt"', b'"maximum_tokens"', b'"model"')),
    ),
    "converse": (Kind(ConverseReader, "/converse", (b'"messages"',), within="/model/"),),
    "converse-stream": (Kind(ConverseReader, "/converse-stream", (b'"messages"',), within="/model/"),),
    "invoke": (Kind(InvokeReader, "/invoke", (b'"anthropic_version"',), "x-amz-date", within="/model/"),),
    "invoke-with-response-stream": (Kind(InvokeReader, "/invoke-with-response-stream", within="/model/"),),
    "count-tokens": (Kind(CountTokensReader, "/count-tokens", (b'"input"',), within="/model/"),),
    "generation": (
        Kind(DashScopeReader, "/generation", (b'"input"', b'"model"'), within="/services/aigc/"),
        Kind(WatsonxReader, "/text/generation", (b'"input"', b'"model_id"'), within="/ml/"),
    ),
    "generation_stream": (Kind(WatsonxReader, "/text/generation_stream", (b'"input"', b'"model_id"'), within="/ml/"),),
    "text": (Kind(WatsonxReader, "/generation/text", (b'"input"', b'"model_id"'), within="/ml/"),),
    "text_stream": (Kind(WatsonxReader, "/generation/text_stream", (b'"input"', b'"model_id"'), within="/ml/"),),
    "text-embedding": (Kind(DashScopeReader, "/text-embedding", (b'"input"', b'"model"'), within="/services/"),),
    "multimodal-embedding": (
        Kind(DashScopeReader, "/multimodal-embedding", (b'"input"', b'"model"'), within="/services/"),
    ),
    "text-rerank": (Kind(DashScopeReader, "/text-rerank", (b'"input"', b'"model"'), within="/services/"),),
    "chatcompletion_v2": (Kind(ChatReader, "/text/chatcompletion_v2", (b'"messages"', b'"model"')),),
    "listen": (Kind(DeepgramListenReader, "/v1/listen", hosts=("deepgram",)),),
    "speak": (Kind(DeepgramSpeakReader, "/v1/speak", hosts=("deepgram",)),),
    "predictions": (Kind(ReplicateReader, "/predictions", hosts=("replicate",)),),
    "runs": (Kind(AssistantsRunReader, "/runs", hosts=_OPENAI, within="/threads"),),
    "submit_tool_outputs": (Kind(AssistantsRunReader, "/submit_tool_outputs", hosts=_OPENAI, within="/runs/"),),
    "videos": (Kind(VideoReader, "/videos", hosts=_VIDEOS),),
    "extensions": (Kind(VideoReader, "/videos/extensions", hosts=_VIDEOS),),
    "remix": (Kind(VideoReader, "/remix", hosts=_VIDEOS, within="/videos/"),),
    "invocations": (
        Kind(ChatReader, "/invocations", (b'"messages"',), within=_SERVED, shaped=True),
        Kind(EmbeddingsReader, "/invocations", (b'"input"',), within=_SERVED, shaped=True),
        Kind(CompletionsReader, "/invocations", (b'"prompt"',), within=_SERVED, shaped=True),
    ),
    "count_tokens": (Kind(CountTokensReader, "/messages/count_tokens", (b'"messages"',)),),
    "input_tokens": (Kind(CountTokensReader, "/responses/input_tokens", (b'"input"',)),),
    "batches": (
        Kind(BatchReader, "/messages/batches", (b'"requests"',)),
        Kind(BatchReader, "/v1/batches", (b'"input_file_id"',)),
    ),
}

_RUNS = (Kind(AssistantsRunReader, "", hosts=_OPENAI, within="/threads/"),)

# The part before the last one, which is the id of something that a POST goes on with.
_CONTINUED: dict[str, tuple[Kind, ...]] = {
    "conversations": (Kind(ConversationsReader, "", hosts=_MISTRAL),),
    "runs": _RUNS,
}

# The part before the last one, which is the id of something already begun -> the formats that may stand there.
_BEGUN: dict[str, tuple[Kind, ...]] = {
    "runs": _RUNS,
    "predictions": (Kind(ReplicateReader, "", hosts=("replicate",)),),
    "videos": (Kind(VideoReader, "", hosts=_VIDEOS),),
}

# Hosts where every POST is an inference, whatever the path.
_INFERENCE_HOSTS = ("api-inference.huggingface.co", "router.huggingface.co", ".endpoints.huggingface.cloud")
_INFERENCE = (Kind(InferenceReader, ""),)
_WORKERS = tuple(Kind(WorkersReader, "", hosts=("cloudflare",), within=mark) for mark in WORKERS_MARKS)
_LOOKS = tuple(f"/{name}/" for name in _BEGUN)


def may_be_call(method: str, target: str) -> bool:
    """Whether recognise() has anything to say of such a request: cheap enough to be asked about all that an app sends.

    method: upper case. target: the path or the whole address.
    """
    return method == "POST" or (method == "GET" and any(look in target for look in _LOOKS))


def recognise(request: Request, hosts: Mapping[str, str | None]) -> WireFormat | None:
    """The wire format of an exchange, None when it is no LLM call that we know.

    hosts: "host" or "host:port" -> the provider's name, or None for a host that must never be looked at.
    """
    path = request.path
    query = path.find("?")
    if query >= 0:
        path = path[:query]
    if path.endswith("/"):
        path = path.rstrip("/")
    kinds = _kinds(request, path)
    if not kinds:
        return None
    provider: str | None = None
    if hosts:
        for name in (f"{request.host}:{request.port}", request.host):
            if name in hosts:
                provider = hosts[name]
                if provider is None:
                    return None
                break
    if provider is None:
        provider = providers.from_host(request.host)
    for kind in kinds:
        if not path.endswith(kind.path) or kind.within not in path or (kind.hosts and provider not in kind.hosts):
            continue
        if (
            (provider is not None and not kind.shaped)
            or (kind.header and kind.header in request.headers)
            or _has_shape(request.body, kind)
        ):
            return WireFormat(kind.reader, provider)
    return None


def _kinds(request: Request, path: str) -> tuple[Kind, ...]:
    """The formats that may stand at this path."""
    last = path.rfind("/")
    if request.method == "POST":
        kinds = _KINDS.get(path[max(last, path.rfind(":")) + 1 :], ())
        if request.host.endswith(_INFERENCE_HOSTS):
            return kinds + _INFERENCE
        if kinds:
            return kinds
        if "/@" in path:
            return _WORKERS
    elif request.method != "GET":
        return ()
    before = path[path.rfind("/", 0, max(last, 0)) + 1 : max(last, 0)]
    return (_CONTINUED if request.method == "POST" else _BEGUN).get(before, ())


def _has_shape(body: bytes | None, kind: Kind) -> bool:
    """Whether a body looks like the format's; one that can't be seen counts as such on a telling path."""
    if body is None:
        return kind.path.count("/") > 1
    if len(body) <= 2 * _LOOK:
        for mark in kind.marks:  # noqa: SIM110  # all() of a generator takes three times as long
            if mark not in body:
                return False
        return True
    return all(body.find(mark, 0, _LOOK) >= 0 or body.find(mark, len(body) - _LOOK) >= 0 for mark in kind.marks)
