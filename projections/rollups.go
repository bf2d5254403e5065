package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
)

const (
	tableUsageHourly = "usage_hourly"

	// rollQuiet is how long no block may have touched an hour before it is rolled up.
	rollQuiet = 2 * time.Second
	// rollEvery is how often the roller looks.
	rollEvery = time.Second
	// rollHoursMax bounds the hours that one statement computes.
	rollHoursMax = 48
	// rollPendingMax bounds the hours that are remembered as dirty; beyond it the
	// roller reads them from the table again when it has caught up.
	rollPendingMax = 1 << 20
)

// RollerConfig configures a [Roller].
type RollerConfig struct {
	// Generation names the tables, for the metrics.
	Generation string
	Store      *clickhouse.Store
	Now        func() time.Time // Required.
	Metrics    *Metrics
	Logger     *slog.Logger
}

// Roller computes the hourly rollups of usage. It belongs to a runner, which tells
// it what each block touched and never waits for it. An hour is computed when it
// was quiet for two seconds; until then readers take it from the base table.
type Roller struct {
	cfg RollerConfig

	mu        sync.Mutex // Guards what follows.
	pending   map[Bucket]touch
	completed uint64 // The newest completed block.
	rescan    bool   // pending does not hold every dirty hour.
}

// touch is the newest block that added rows to an hour, and when it was completed.
type touch struct {
	block uint64
	at    time.Time
}

// NewRoller returns a roller that does nothing until [Roller.Run].
func NewRoller(cfg RollerConfig) (*Roller, error) {
	if cfg.Store == nil || cfg.Now == nil || cfg.Metrics == nil || cfg.Logger == nil {
		return nil, errors.New("roller: a store, a clock, metrics and a logger are required")
	}
	return &Roller{cfg: cfg, pending: map[Bucket]touch{}, rescan: true}, nil
}

// touch says that block is completed and added rows to the hours in touched, which
// is not kept.
func (r *Roller) touch(block uint64, touched map[Bucket]struct{}) {
	now := r.cfg.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.completed = max(r.completed, block)
	for b := range touched {
		if _, known := r.pending[b]; !known {
			if len(r.pending) >= rollPendingMax {
				r.rescan = true
				continue
			}
			b.Account = domain.AccountID(strings.Clone(string(b.Account)))
		}
		r.pending[b] = touch{block: block, at: now}
	}
}

// rescanAll makes the roller look for dirty hours in the table: marks were made there
// that it was not told of.
func (r *Roller) rescanAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rescan = true
}

// backlog returns how many hours are known to need a rollup.
func (r *Roller) backlog() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.pending)
}

// Run computes rollups until ctx ends, which is no error. Faults of the store are
// logged and tried again: readers do not depend on the rollups being new.
func (r *Roller) Run(ctx context.Context) error {
	tick := time.NewTicker(rollEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		r.cfg.Metrics.rollups(r.cfg.Generation, r.backlog())
		if _, err := r.Roll(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Logger.WarnContext(ctx, "rollups are interrupted, trying again", slog.Any("error", err))
		}
	}
}

// Roll computes every hour that is dirty and quiet, and returns how many those were.
func (r *Roller) Roll(ctx context.Context) (int, error) {
	if err := r.scan(ctx); err != nil {
		return 0, err
	}
	hours, version := r.quiet()
	done := 0
	for batch := range batches(hours) {
		if err := r.compute(ctx, batch, version); err != nil {
			return done, err
		}
		r.forget(batch, version)
		done += len(batch)
		r.cfg.Metrics.rolled.Add(float64(len(batch)))
	}
	return done, nil
}

// scan fills pending from the table, where it may not hold every dirty hour: at the
// start, and after it was full.
func (r *Roller) scan(ctx context.Context) error {
	r.mu.Lock()
	needed := r.rescan && r.completed > 0 && len(r.pending) < rollPendingMax/2
	completed := r.completed
	r.mu.Unlock()
	if !needed {
		return nil
	}
	rows, err := r.cfg.Store.Query(ctx, clickhouse.Select{
		Table: tableUsageBuckets, Scope: clickhouse.ScopeAll(),
		Columns: []string{"account_id", "toInt64(toUnixTimestamp(hour))"},
		GroupBy: []string{"account_id", "hour"},
		Having:  []clickhouse.Cond{clickhouse.Raw("max(dirty) > max(clean)"), clickhouse.Raw("max(dirty) <= ?", completed)},
		Limit:   rollPendingMax / 2,
	})
	if err != nil {
		return fmt.Errorf("read dirty hours: %w", err)
	}
	found := map[Bucket]struct{}{}
	for rows.Next() {
		var (
			account string
			hour    int64
		)
		if err := rows.Scan(&account, &hour); err != nil {
			return errors.Join(fmt.Errorf("read dirty hours: %w", err), rows.Close())
		}
		found[Bucket{Account: domain.AccountID(account), Hour: hour}] = struct{}{}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return fmt.Errorf("read dirty hours: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rescan = len(found) == rollPendingMax/2
	for b := range found {
		if _, known := r.pending[b]; !known {
			r.pending[b] = touch{}
		}
	}
	return nil
}

// quiet returns the pending hours that no block touched lately, and the block whose
// state their rollups will show.
func (r *Roller) quiet() ([]Bucket, uint64) {
	limit := r.cfg.Now().Add(-rollQuiet)
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Bucket
	for b, touched := range r.pending {
		if !touched.at.After(limit) {
			out = append(out, b)
		}
	}
	return out, r.completed
}

// forget drops hours that were computed, but those that a block touched meanwhile.
func (r *Roller) forget(hours []Bucket, version uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range hours {
		if r.pending[b].block <= version {
			delete(r.pending, b)
		}
	}
}

// batches cuts hours into lists of one account and one month each: the rollup's
// partitions are months, and an insert may touch few.
func batches(hours []Bucket) func(func([]Bucket) bool) {
	slices.SortFunc(hours, func(a, b Bucket) int {
		if c := strings.Compare(string(a.Account), string(b.Account)); c != 0 {
			return c
		}
		return int(a.Hour/3600 - b.Hour/3600)
	})
	same := func(a, b Bucket) bool {
		return a.Account == b.Account && monthOf(time.Unix(a.Hour, 0)) == monthOf(time.Unix(b.Hour, 0))
	}
	return func(yield func([]Bucket) bool) {
		for len(hours) > 0 {
			n := 1
			for n < len(hours) && n < rollHoursMax && same(hours[0], hours[n]) {
				n++
			}
			if !yield(hours[:n]) {
				return
			}
			hours = hours[n:]
		}
	}
}

const rollSQL = `INSERT INTO usage_hourly (account_id, hour, key_id, iam_id, action, version, count, failures, bytes, addresses)
SELECT account_id, bucket, key_id, iam_id, action, ?, count(), countIf(outcome = 'failure'), sum(bytes), uniqExactState(toString(source))
FROM (
  SELECT account_id, toStartOfHour(toDateTime(time, 'UTC')) AS bucket, key_id, iam_id, action, outcome, bytes, source
  FROM usage
  WHERE account_id = ? AND time >= fromUnixTimestamp64Milli(?, 'UTC') AND time < fromUnixTimestamp64Milli(?, 'UTC') AND block <= ?
)
WHERE toInt64(toUnixTimestamp(bucket)) IN (%s)
GROUP BY account_id, bucket, key_id, iam_id, action`

// compute writes the rollups of the hours of one account under version, and only
// then marks the hours clean.
func (r *Roller) compute(ctx context.Context, hours []Bucket, version uint64) error {
	first, last := hours[0], hours[len(hours)-1]
	args := make([]any, 0, 5+len(hours))
	args = append(args, version, string(first.Account), first.Hour*1000, (last.Hour+3600)*1000, version)
	marks := make([]string, len(hours))
	for i, b := range hours {
		marks[i] = "?"
		args = append(args, b.Hour)
	}
	if err := r.cfg.Store.Exec(ctx, fmt.Sprintf(rollSQL, strings.Join(marks, ", ")), args...); err != nil {
		return fmt.Errorf("roll up %d hours: %w", len(hours), err)
	}
	columns := []string{"account_id", "hour", "dirty", "clean"}
	_, err := r.cfg.Store.Insert(ctx, tableUsageBuckets, columns, clickhouse.InsertOptions{Fsync: true}, func(b clickhouse.Batch) error {
		for _, h := range hours {
			if err := b.Append(string(h.Account), time.Unix(h.Hour, 0).UTC(), uint64(0), version); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("mark %d hours clean: %w", len(hours), err)
	}
	return nil
}
