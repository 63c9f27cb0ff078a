-- Sums of llm_calls by UTC day, made from the sums of its hours once the day is over: what a month's question reads.
--
-- A rebuild of a day is a new generation, in force from its line in llm_calls_daily_generations on. That line holds a
-- hash of the generations of the hours that were summed: where it is no longer that of the hours' newest generations,
-- the day is out of date and nobody may read it.
CREATE TABLE IF NOT EXISTS $database.llm_calls_daily$local $on_cluster
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
ENGINE = ${replicated}MergeTree${replica_only}
PARTITION BY toYYYYMM(day)
ORDER BY (team, day, generation, project, agent, request_model)
SETTINGS max_cleanup_delay_period = 30;

-- layout: cluster
CREATE TABLE IF NOT EXISTS $database.llm_calls_daily $on_cluster
AS $database.llm_calls_daily_local
ENGINE = Distributed('{cluster}', '$database', 'llm_calls_daily_local', cityHash64(day, team, project, agent));

CREATE TABLE IF NOT EXISTS $database.llm_calls_daily_generations $on_cluster
(
    day Date,
    generation UInt64,
    hours UInt64
)
ENGINE = ${replicated}ReplacingMergeTree(${replica_everywhere}generation)
ORDER BY day;
