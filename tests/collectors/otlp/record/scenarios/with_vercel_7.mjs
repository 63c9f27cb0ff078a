// The Vercel AI SDK 7 (npm `ai`, `@ai-sdk/otel`): text, a stream, a tool, embeddings, Claude, an error.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { OTLPTraceExporter as JsonExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { NodeSDK, tracing } from "@opentelemetry/sdk-node";

import { OpenTelemetry } from "@ai-sdk/otel";
import { embed, generateText, registerTelemetry, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const base = process.env.PROVIDER;
const Exporter = process.env.ENCODING === "json" ? JsonExporter : OTLPTraceExporter;
const sdk = new NodeSDK({
  serviceName: "vercel",
  spanProcessors: [new tracing.BatchSpanProcessor(new Exporter({ url: `${base}/v1/traces` }))],
});
sdk.start();
registerTelemetry(new OpenTelemetry());

const system = "You know the weather. canary-do-not-store";
const prompt = "How is the weather in Paris? canary-do-not-store";
const telemetry = {
  experimental_telemetry: {
    isEnabled: true,
    functionId: "forecaster",
    metadata: { sessionId: "session-1", userId: "user-1" },
  },
};
const openai = createOpenAI({ apiKey: "sk-test", baseURL: `${base}/v1` });
const anthropic = createAnthropic({ apiKey: "sk-ant-test", baseURL: `${base}/v1` });

const weather = tool({
  description: "The weather of a city",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `sunny in ${city}`,
});
await generateText({
  model: openai.chat("gpt-4o-mini"),
  system,
  prompt,
  tools: { weather },
  stopWhen: stepCountIs(3),
  ...telemetry,
});
const stream = streamText({ model: openai("gpt-4o-mini"), system, prompt, ...telemetry });
for await (const _ of stream.textStream);
await generateText({ model: anthropic("claude-sonnet-4-5"), system, prompt, ...telemetry });
await embed({ model: openai.embedding("text-embedding-3-small"), value: prompt, ...telemetry });
try {
  await generateText({ model: openai.chat("busy-model"), prompt, maxRetries: 0, ...telemetry });
  process.exit(1);
} catch (error) {
  console.log("failed as meant:", error.name);
}
await sdk.shutdown();
