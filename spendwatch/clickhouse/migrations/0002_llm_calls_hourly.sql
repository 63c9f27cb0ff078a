-- Sums of llm_calls by UTC hour. Each rebuild of an hour writes a new generation; it counts from the moment that
-- llm_calls_generations names it. Read only the newest generation of an hour:
--   WHERE (hour, generation) GLOBAL IN (SELECT hour, max(generation) FROM llm_calls_generations GROUP BY hour)
-- or the view llm_calls_hourly_newest. A provisional generation is one that is sure to be rebuilt (its hour was still
-- changing); such rows expire.
CREATE TABLE IF NOT EXISTS $database.llm_calls_hourly$local $on_cluster
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
ENGINE = ${replicated}MergeTree${replica_only}
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, generation, team, project, agent, request_model)
TTL rolled_at + INTERVAL 1 HOUR DELETE WHERE provisional = 1
SETTINGS merge_with_ttl_timeout = 3600, max_cleanup_delay_period = 30;

-- layout: cluster
CREATE TABLE IF NOT EXISTS $database.llm_calls_hourly $on_cluster
AS $database.llm_calls_hourly_local
ENGINE = Distributed('{cluster}', '$database', 'llm_calls_hourly_local', cityHash64(hour, team, project, agent));

-- The commit point of a rebuild: one block with a line for each rebuilt hour, and one for hour 0, whose rolled_through
-- says up to which stored_at the calls have been looked at. In a cluster every node holds all of it.
CREATE TABLE IF NOT EXISTS $database.llm_calls_generations $on_cluster
(
    hour DateTime('UTC'),
    generation UInt64,
    rolled_through DateTime64(3, 'UTC'),
    provisional UInt8
)
ENGINE = ${replicated}ReplacingMergeTree(${replica_everywhere}generation)
ORDER BY hour;

CREATE VIEW IF NOT EXISTS $database.llm_calls_hourly_newest $on_cluster
AS SELECT * FROM $database.llm_calls_hourly
WHERE (hour, generation) GLOBAL IN (SELECT hour, max(generation) FROM $database.llm_calls_generations GROUP BY hour);
