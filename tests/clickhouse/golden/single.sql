CREATE TABLE IF NOT EXISTS spendwatch.llm_calls
(
    call_id UInt64 CODEC(NONE),
    revision UInt32 CODEC(T64, ZSTD(1)),
    is_deleted UInt8 DEFAULT 0 CODEC(T64, ZSTD(1)),
    started_at DateTime64(6, 'UTC') CODEC(Delta(8), T64, ZSTD(1)),
    duration_us UInt64 CODEC(T64, ZSTD(1)),
    time_to_first_chunk_us Nullable(UInt64) CODEC(T64, ZSTD(1)),
    received_at DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    stored_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta(8), ZSTD(1)),
    source LowCardinality(String) CODEC(ZSTD(1)),
    trace_id FixedString(16) CODEC(ZSTD(1)),
    span_id FixedString(8) CODEC(NONE),
    parent_span_id FixedString(8) CODEC(ZSTD(1)),
    response_id String CODEC(ZSTD(1)),
    environment LowCardinality(String) CODEC(ZSTD(1)),
    team LowCardinality(String) CODEC(ZSTD(1)),
    project LowCardinality(String) CODEC(ZSTD(1)),
    service_name LowCardinality(String) CODEC(ZSTD(1)),
    agent LowCardinality(String) CODEC(ZSTD(1)),
    feature LowCardinality(String) CODEC(ZSTD(1)),
    user_id String CODEC(ZSTD(1)),
    session_id String CODEC(ZSTD(1)),
    key_hash LowCardinality(String) CODEC(ZSTD(1)),
    provider_name LowCardinality(String) CODEC(ZSTD(1)),
    serving_provider LowCardinality(String) CODEC(ZSTD(1)),
    operation_name LowCardinality(String) CODEC(ZSTD(1)),
    request_model LowCardinality(String) CODEC(ZSTD(1)),
    response_model LowCardinality(String) CODEC(ZSTD(1)),
    server_address LowCardinality(String) CODEC(ZSTD(1)),
    server_port UInt16 CODEC(T64, ZSTD(1)),
    service_tier LowCardinality(String) CODEC(ZSTD(1)),
    wire_format LowCardinality(String) CODEC(ZSTD(1)),
    status LowCardinality(String) CODEC(ZSTD(1)),
    http_status UInt16 CODEC(T64, ZSTD(1)),
    error_type LowCardinality(String) CODEC(ZSTD(1)),
    finish_reason LowCardinality(String) CODEC(ZSTD(1)),
    streamed Bool CODEC(ZSTD(1)),
    input_tokens Nullable(UInt32) CODEC(T64, ZSTD(1)),
    output_tokens Nullable(UInt32) CODEC(T64, ZSTD(1)),
    cache_read_input_tokens Nullable(UInt32) CODEC(T64, ZSTD(1)),
    cache_write_input_tokens Nullable(UInt32) CODEC(T64, ZSTD(1)),
    cache_write_1h_input_tokens Nullable(UInt32) CODEC(T64, ZSTD(1)),
    reasoning_output_tokens Nullable(UInt32) CODEC(T64, ZSTD(1)),
    input_audio_tokens Nullable(UInt32) CODEC(T64, ZSTD(1)),
    output_audio_tokens Nullable(UInt32) CODEC(T64, ZSTD(1)),
    input_image_tokens Nullable(UInt32) CODEC(T64, ZSTD(1)),
    output_image_tokens Nullable(UInt32) CODEC(T64, ZSTD(1)),
    total_tokens_offset Nullable(Int64) CODEC(T64, ZSTD(1)),
    total_tokens Nullable(UInt32)
        ALIAS CAST(total_tokens_offset + ifNull(input_tokens, 0) + ifNull(output_tokens, 0), 'Nullable(UInt32)'),
    list_cost Nullable(Decimal(18, 12)) CODEC(GCD, T64('bit'), ZSTD(1)),
    routed_cost Nullable(Decimal(18, 12)) CODEC(GCD, T64('bit'), ZSTD(1)),
    effective_cost Nullable(Decimal(18, 12)) CODEC(GCD, T64('bit'), ZSTD(1)),
    upstream_cost_offset Nullable(Decimal(18, 12)) CODEC(GCD, T64('bit'), ZSTD(1)),
    reported_cost_offset Nullable(Decimal(18, 12)) CODEC(GCD, T64('bit'), ZSTD(1)),
    observer_listed_cost_offset Nullable(Decimal(18, 12)) CODEC(GCD, T64('bit'), ZSTD(1)),
    upstream_cost Nullable(Decimal(18, 12)) ALIAS upstream_cost_offset + ifNull(effective_cost, toDecimal64(0, 12)),
    reported_cost Nullable(Decimal(18, 12)) ALIAS reported_cost_offset + ifNull(effective_cost, toDecimal64(0, 12)),
    observer_listed_cost Nullable(Decimal(18, 12))
        ALIAS observer_listed_cost_offset + ifNull(effective_cost, toDecimal64(0, 12)),
    cost_basis LowCardinality(String) CODEC(ZSTD(1)),
    price_version LowCardinality(String) CODEC(ZSTD(1)),
    observer_price_version LowCardinality(String) CODEC(ZSTD(1)),
    is_byok Nullable(Bool) CODEC(ZSTD(1)),
    fingerprint_system UInt64 CODEC(ZSTD(1)),
    fingerprint_prefix UInt64 CODEC(ZSTD(1)),
    fingerprint_last UInt64 CODEC(ZSTD(1)),
    fingerprint_last_role LowCardinality(String) CODEC(ZSTD(1)),
    fingerprint_last_simhash UInt64 CODEC(ZSTD(1)),
    fingerprint_last_length Nullable(UInt32) CODEC(T64, ZSTD(1)),
    fingerprint_last_is_error Nullable(Bool) CODEC(ZSTD(1)),
    fingerprint_last_normalised UInt64 CODEC(ZSTD(1)),
    fingerprint_messages Nullable(UInt32) CODEC(T64, ZSTD(1)),
    fingerprint_tools Array(String) CODEC(ZSTD(1)),
    fingerprint_response UInt64 CODEC(ZSTD(1)),
    fingerprint_response_simhash UInt64 CODEC(ZSTD(1)),
    fingerprint_response_length Nullable(UInt32) CODEC(T64, ZSTD(1)),
    attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    INDEX started_at_range started_at TYPE minmax GRANULARITY 1,
    INDEX received_at_range received_at TYPE minmax GRANULARITY 1,
    INDEX stored_at_range stored_at TYPE minmax GRANULARITY 1,
    INDEX call_id_bloom call_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX trace_id_bloom trace_id TYPE bloom_filter(0.02) GRANULARITY 2,
    INDEX session_id_bloom session_id TYPE bloom_filter(0.02) GRANULARITY 2
)
ENGINE = ReplacingMergeTree(revision, is_deleted)
PARTITION BY toYYYYMM(started_at)
PRIMARY KEY (toStartOfHour(started_at), project)
ORDER BY (toStartOfHour(started_at), project, toStartOfFifteenMinutes(started_at), session_id, started_at, call_id)
SETTINGS max_cleanup_delay_period = 30;

CREATE TABLE IF NOT EXISTS spendwatch.llm_calls_hourly
(
    hour DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    generation UInt64 CODEC(Delta(8), ZSTD(1)),
    rolled_at DateTime('UTC') CODEC(Delta(4), ZSTD(1)),
    provisional UInt8 CODEC(T64, ZSTD(1)),
    environment LowCardinality(String) CODEC(ZSTD(1)),
    team LowCardinality(String) CODEC(ZSTD(1)),
    project LowCardinality(String) CODEC(ZSTD(1)),
    service_name LowCardinality(String) CODEC(ZSTD(1)),
    agent LowCardinality(String) CODEC(ZSTD(1)),
    feature LowCardinality(String) CODEC(ZSTD(1)),
    key_hash LowCardinality(String) CODEC(ZSTD(1)),
    provider_name LowCardinality(String) CODEC(ZSTD(1)),
    serving_provider LowCardinality(String) CODEC(ZSTD(1)),
    operation_name LowCardinality(String) CODEC(ZSTD(1)),
    request_model LowCardinality(String) CODEC(ZSTD(1)),
    response_model LowCardinality(String) CODEC(ZSTD(1)),
    status LowCardinality(String) CODEC(ZSTD(1)),
    cost_basis LowCardinality(String) CODEC(ZSTD(1)),
    calls UInt64 CODEC(T64, ZSTD(1)),
    unpriced_calls UInt64 CODEC(T64, ZSTD(1)),
    byok_calls UInt64 CODEC(T64, ZSTD(1)),
    effective_cost Decimal(38, 12) CODEC(ZSTD(1)),
    list_cost Decimal(38, 12) CODEC(ZSTD(1)),
    routed_cost Decimal(38, 12) CODEC(ZSTD(1)),
    upstream_cost Decimal(38, 12) CODEC(ZSTD(1)),
    input_tokens UInt64 CODEC(T64, ZSTD(1)),
    output_tokens UInt64 CODEC(T64, ZSTD(1)),
    cache_read_input_tokens UInt64 CODEC(T64, ZSTD(1)),
    cache_write_input_tokens UInt64 CODEC(T64, ZSTD(1)),
    reasoning_output_tokens UInt64 CODEC(T64, ZSTD(1)),
    duration_us UInt64 CODEC(T64, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, generation, team, project, agent, request_model)
TTL rolled_at + INTERVAL 1 HOUR DELETE WHERE provisional = 1
SETTINGS merge_with_ttl_timeout = 3600, max_cleanup_delay_period = 30;

CREATE TABLE IF NOT EXISTS spendwatch.llm_calls_generations
(
    hour DateTime('UTC'),
    generation UInt64,
    rolled_through DateTime64(3, 'UTC'),
    provisional UInt8
)
ENGINE = ReplacingMergeTree(generation)
ORDER BY hour;

CREATE VIEW IF NOT EXISTS spendwatch.llm_calls_hourly_newest
AS SELECT * FROM spendwatch.llm_calls_hourly
WHERE (hour, generation) GLOBAL IN (SELECT hour, max(generation) FROM spendwatch.llm_calls_generations GROUP BY hour);

CREATE TABLE IF NOT EXISTS spendwatch.llm_calls_daily
(
    day Date CODEC(Delta(2), ZSTD(1)),
    generation UInt64 CODEC(Delta(8), ZSTD(1)),
    environment LowCardinality(String) CODEC(ZSTD(1)),
    team LowCardinality(String) CODEC(ZSTD(1)),
    project LowCardinality(String) CODEC(ZSTD(1)),
    service_name LowCardinality(String) CODEC(ZSTD(1)),
    agent LowCardinality(String) CODEC(ZSTD(1)),
    feature LowCardinality(String) CODEC(ZSTD(1)),
    key_hash LowCardinality(String) CODEC(ZSTD(1)),
    provider_name LowCardinality(String) CODEC(ZSTD(1)),
    serving_provider LowCardinality(String) CODEC(ZSTD(1)),
    operation_name LowCardinality(String) CODEC(ZSTD(1)),
    request_model LowCardinality(String) CODEC(ZSTD(1)),
    response_model LowCardinality(String) CODEC(ZSTD(1)),
    status LowCardinality(String) CODEC(ZSTD(1)),
    cost_basis LowCardinality(String) CODEC(ZSTD(1)),
    calls UInt64 CODEC(T64, ZSTD(1)),
    unpriced_calls UInt64 CODEC(T64, ZSTD(1)),
    byok_calls UInt64 CODEC(T64, ZSTD(1)),
    effective_cost Decimal(38, 12) CODEC(ZSTD(1)),
    list_cost Decimal(38, 12) CODEC(ZSTD(1)),
    routed_cost Decimal(38, 12) CODEC(ZSTD(1)),
    upstream_cost Decimal(38, 12) CODEC(ZSTD(1)),
    input_tokens UInt64 CODEC(T64, ZSTD(1)),
    output_tokens UInt64 CODEC(T64, ZSTD(1)),
    cache_read_input_tokens UInt64 CODEC(T64, ZSTD(1)),
    cache_write_input_tokens UInt64 CODEC(T64, ZSTD(1)),
    reasoning_output_tokens UInt64 CODEC(T64, ZSTD(1)),
    duration_us UInt64 CODEC(T64, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(day)
ORDER BY (team, day, generation, project, agent, request_model)
SETTINGS max_cleanup_delay_period = 30;

CREATE TABLE IF NOT EXISTS spendwatch.llm_calls_daily_generations
(
    day Date,
    generation UInt64,
    hours UInt64
)
ENGINE = ReplacingMergeTree(generation)
ORDER BY day;

