-- Tables of one generation. All are made from the log and may be thrown away.
--
-- Common columns. position: the event's place in the log. idx: the record's place in
-- the event. block: number of the block that wrote the row. recorded_at: when the log
-- took the event; partitions go by it, never by event time, since one insert may
-- touch 100 partitions at most and old records arrive late. event_id is text, since
-- the order of ClickHouse's UUID type is not the order of its bytes.
--
-- Every table that a block writes has a deduplication window of 10,000 blocks, so that
-- a redone insert with the same token is one insert. An insert is acknowledged when
-- its parts are flushed (fsync_*), also the INSERT … SELECT of the computed tables.

-- usage: one row a use. Never changed, never replaced.
-- Key: an account's key's uses in time order is what nearly every question reads; the
-- newest uses of one key are a range. position, idx make the order total.
-- Indexes: position and block find the rows of one block (redo, count, detection);
-- time serves ranges over a whole account; use_id serves the importer's look-ups;
-- address serves "who else came from there".
CREATE TABLE IF NOT EXISTS usage (
    account_id      LowCardinality(String),
    key_id          String CODEC(ZSTD(1)),
    time            DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    position        UInt64 CODEC(Delta, ZSTD(1)),
    idx             UInt32 CODEC(Delta, ZSTD(1)),
    block           UInt64 CODEC(Delta, ZSTD(1)),
    recorded_at     DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    use_id          String CODEC(ZSTD(1)),
    iam_id          LowCardinality(String),
    action          LowCardinality(String),
    access          LowCardinality(String),
    outcome         LowCardinality(String),
    status          UInt16,
    error_code      LowCardinality(String),
    source          LowCardinality(String),
    address         IPv6 CODEC(ZSTD(1)),
    network         LowCardinality(String),
    country         LowCardinality(String),
    asn             UInt32,
    user_agent      LowCardinality(String),
    region          LowCardinality(String),
    target          String CODEC(ZSTD(1)),
    request_id      String CODEC(ZSTD(1)),
    latency_ms      UInt32,
    bytes           UInt64,
    key_fingerprint LowCardinality(String),
    labels          Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    INDEX position_minmax position TYPE minmax GRANULARITY 1,
    INDEX block_minmax block TYPE minmax GRANULARITY 1,
    INDEX time_minmax time TYPE minmax GRANULARITY 1,
    INDEX use_id_bloom use_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX address_bloom address TYPE bloom_filter(0.01) GRANULARITY 1
) ENGINE = MergeTree
PARTITION BY toYYYYMM(recorded_at)
ORDER BY (account_id, key_id, time, position, idx)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- activity: one row an evidence event that is an activity record (all but usage
-- batches). Key: an account's records in time order is what search pages through.
-- Indexes: block for redo and detection, event_id for one record, key_id and
-- correlation_id for the two common look-ups.
CREATE TABLE IF NOT EXISTS activity (
    account_id        LowCardinality(String),
    event_time        DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    position          UInt64 CODEC(Delta, ZSTD(1)),
    idx               UInt32,
    block             UInt64 CODEC(Delta, ZSTD(1)),
    recorded_at       DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    event_id          String CODEC(ZSTD(1)),
    stream            String CODEC(ZSTD(1)),
    revision          UInt64,
    event_type        LowCardinality(String),
    action            LowCardinality(String),
    outcome           LowCardinality(String),
    reason_code       UInt16,
    reason            String CODEC(ZSTD(1)),
    severity          LowCardinality(String),
    initiator_id      LowCardinality(String),
    initiator_name    LowCardinality(String),
    initiator_authn_id   LowCardinality(String),
    initiator_authn_name LowCardinality(String),
    initiator_type    LowCardinality(String),
    initiator_account LowCardinality(String),
    credential_type   LowCardinality(String),
    credential_id     String CODEC(ZSTD(1)),
    source            LowCardinality(String),
    address           IPv6 CODEC(ZSTD(1)),
    user_agent        LowCardinality(String),
    target_id         String CODEC(ZSTD(1)),
    target_name       String CODEC(ZSTD(1)),
    target_type       LowCardinality(String),
    key_id            String CODEC(ZSTD(1)),
    correlation_id    String CODEC(ZSTD(1)),
    message           String CODEC(ZSTD(1)),
    request_data      String CODEC(ZSTD(1)),
    INDEX block_minmax block TYPE minmax GRANULARITY 1,
    INDEX position_minmax position TYPE minmax GRANULARITY 1,
    INDEX event_id_bloom event_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX key_id_bloom key_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX correlation_bloom correlation_id TYPE bloom_filter(0.01) GRANULARITY 1
) ENGINE = MergeTree
PARTITION BY toYYYYMM(recorded_at)
ORDER BY (account_id, event_time, position, idx)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- key_states: every state that a key was ever in, from its effective time on. The state
-- at T is the last by (effective_at, event_id). Not partitioned: a key's history is read
-- whole and is never cut.
CREATE TABLE IF NOT EXISTS key_states (
    account_id   LowCardinality(String),
    key_id       String CODEC(ZSTD(1)),
    effective_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    event_id     String CODEC(ZSTD(1)),
    position     UInt64 CODEC(Delta, ZSTD(1)),
    block        UInt64 CODEC(Delta, ZSTD(1)),
    recorded_at  DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    event_type   LowCardinality(String),
    kind         LowCardinality(String),
    iam_id       LowCardinality(String),
    name         String CODEC(ZSTD(1)),
    locked       Bool,
    disabled     Bool,
    deleted      Bool,
    expires_at   Nullable(DateTime64(3, 'UTC')),
    state        String CODEC(ZSTD(1)),
    INDEX block_minmax block TYPE minmax GRANULARITY 1,
    INDEX position_minmax position TYPE minmax GRANULARITY 1
) ENGINE = MergeTree
ORDER BY (account_id, key_id, effective_at, event_id)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- api_keys: the newest state of each key; read with FINAL under an account filter.
-- version orders states as the domain does, by (effective_at, event_id): the time in
-- milliseconds shifted left by 22 bits, and the first 22 bits of the event id. The log
-- position would not do: a late fact about an external key has a newer position and an
-- older effective time. Index on id: one key without its account.
CREATE TABLE IF NOT EXISTS api_keys (
    account_id   LowCardinality(String),
    id           String,
    version      UInt64,
    position     UInt64,
    block        UInt64,
    recorded_at  DateTime64(3, 'UTC'),
    effective_at DateTime64(3, 'UTC'),
    kind         LowCardinality(String),
    iam_id       LowCardinality(String),
    name         String,
    description  String,
    locked       Bool,
    disabled     Bool,
    deleted      Bool,
    expires_at   Nullable(DateTime64(3, 'UTC')),
    created_at   DateTime64(3, 'UTC'),
    created_by   LowCardinality(String),
    modified_at  DateTime64(3, 'UTC'),
    state        String CODEC(ZSTD(1)),
    INDEX id_bloom id TYPE bloom_filter(0.001) GRANULARITY 1
) ENGINE = ReplacingMergeTree(version)
ORDER BY (account_id, id)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- findings: the newest state of each finding; version is its stream revision.
CREATE TABLE IF NOT EXISTS findings (
    account_id   LowCardinality(String),
    id           String,
    version      UInt64,
    position     UInt64,
    block        UInt64,
    recorded_at  DateTime64(3, 'UTC'),
    rule_id      LowCardinality(String),
    rule_version UInt32,
    severity     LowCardinality(String),
    technique    LowCardinality(String),
    key_id       String,
    iam_id       String,
    title        String,
    reason       String,
    advice       String,
    first_seen   DateTime64(3, 'UTC'),
    last_seen    DateTime64(3, 'UTC'),
    count        UInt64,
    status       LowCardinality(String),
    finding      String CODEC(ZSTD(1)),
    INDEX id_bloom id TYPE bloom_filter(0.001) GRANULARITY 1
) ENGINE = ReplacingMergeTree(version)
ORDER BY (account_id, id)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- usage_buckets: which hours of an account received rows (dirty: newest block that
-- added any) and up to which block their rollup was computed (clean). Rows are maxima,
-- so writing one twice changes nothing.
CREATE TABLE IF NOT EXISTS usage_buckets (
    account_id LowCardinality(String),
    hour       DateTime('UTC'),
    dirty      SimpleAggregateFunction(max, UInt64),
    clean      SimpleAggregateFunction(max, UInt64)
) ENGINE = AggregatingMergeTree
ORDER BY (account_id, hour)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- usage_hourly: the rollup. The rows of a bucket are those whose version equals the
-- bucket's clean block; a recomputed bucket replaces its rows under a higher version.
-- addresses holds the exact set of source texts as they were given, the empty one
-- included, so that distinct counts over many hours stay exact and equal
-- uniqExact(source) over usage.
CREATE TABLE IF NOT EXISTS usage_hourly (
    account_id LowCardinality(String),
    hour       DateTime('UTC'),
    key_id     String CODEC(ZSTD(1)),
    iam_id     LowCardinality(String),
    action     LowCardinality(String),
    version    UInt64,
    count      UInt64,
    failures   UInt64,
    bytes      UInt64,
    addresses  AggregateFunction(uniqExact, String)
) ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(hour)
ORDER BY (account_id, hour, key_id, iam_id, action)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- use_violations: one row a use whose key was not valid at that moment, judged by all
-- that the log knew up to block. Recomputed for a key whose history changed: retracted
-- rows stay as retracted = 1 until merged away. Read with FINAL and retracted = 0.
CREATE TABLE IF NOT EXISTS use_violations (
    account_id     LowCardinality(String),
    key_id         String CODEC(ZSTD(1)),
    time           DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    position       UInt64 CODEC(Delta, ZSTD(1)),
    idx            UInt32,
    block          UInt64,
    retracted      UInt8,
    use_id         String CODEC(ZSTD(1)),
    iam_id         LowCardinality(String),
    action         LowCardinality(String),
    outcome        LowCardinality(String),
    source         LowCardinality(String),
    user_agent     LowCardinality(String),
    status         LowCardinality(String),
    locked         Bool,
    state_since    DateTime64(3, 'UTC'),
    state_event_id String CODEC(ZSTD(1)),
    INDEX block_minmax block TYPE minmax GRANULARITY 1
) ENGINE = ReplacingMergeTree(block)
ORDER BY (account_id, key_id, time, position, idx)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
