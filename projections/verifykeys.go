package projections

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/clickhouse"
)

// keys goes through all keys in the order (account, key) and compares what is
// computed from the tables that [verifier.events] compared: the newest states, the
// violations, the rollups and their marks.
func (v *verifier) keys(ctx context.Context) (err error) {
	k := &keyVerifier{verifier: v}
	defer func() {
		err = errors.Join(err, closeAll(k.uses, k.states, k.newest, k.violations, k.earlier, k.hours, k.marks))
	}()
	if err := k.open(ctx); err != nil {
		return err
	}
	done := uint64(0)
	for {
		key, ok := k.nextKey()
		if !ok {
			break
		}
		if err := k.enter(key.Account); err != nil {
			return err
		}
		if err := k.key(key); err != nil {
			return err
		}
		if done++; done%1000 == 0 {
			v.progress(VerifyProgress{Phase: "keys", Done: done})
		}
	}
	k.leave()
	return k.enterMarks("", true)
}

// keyVerifier is the state of [verifier.keys]. Its cursors are all in the order
// (account, key) but marks, which is in the order (account, hour).
type keyVerifier struct {
	*verifier

	// earlier are the marks as they were before the rollups were read, marks as they were
	// after: a rollup may be made anew between any two statements.
	uses, states, newest, violations, earlier, hours, marks *cursor

	account domain.AccountID
	entered bool
	buckets map[int64]*bucket // Of the account, by hour.
}

// bucket is what is known of one hour of an account.
type bucket struct {
	dirty, clean uint64 // The table's marks.
	touched      uint64 // Newest block with a use in the hour.
	moved        bool   // The marks changed while the rollups were read.
}

// compared reports whether the hour's rollup is what readers take, and was made of
// what is compared here.
func (b *bucket) compared(last uint64) bool {
	return b.clean >= b.dirty && b.clean <= last && !b.moved
}

func columnsOf(like Rows, names ...string) []Column {
	out := make([]Column, len(names))
	for i, n := range names {
		out[i] = like.Columns[columnAt(like, n)]
	}
	return out
}

// violationRow is the form of table use_violations.
func violationRow() []Column {
	var u usageRows
	columns := columnsOf(u.rows(), "account_id", "key_id", "time", "position", "idx", "block", "use_id", "iam_id", "action", "outcome", "source", "user_agent")
	return append(columns, Column{"status", []string{}}, Column{"locked", []bool{}}, Column{"state_since", []int64{}}, Column{"state_event_id", []string{}})
}

func (k *keyVerifier) open(ctx context.Context) error {
	var (
		uses    usageRows
		states  keyStateRows
		newest  apiKeyRows
		buckets bucketRows
	)
	useOrder := []string{"account_id", "key_id", "time", "position", "idx"}
	hourly := append(columnsOf(uses.rows(), "account_id", "key_id"), Column{"hour", []int64{}}, Column{"iam_id", []string{}},
		Column{"action", []string{}}, Column{"version", []uint64{}}, Column{"count", []uint64{}}, Column{"failures", []uint64{}},
		Column{"bytes", []uint64{}}, Column{"addresses", []uint64{}})
	marks := clickhouse.Select{
		Table: tableUsageBuckets, GroupBy: []string{"account_id", "hour"}, OrderBy: []string{"account_id", "hour"},
		Columns: []string{"account_id", "toInt64(toUnixTimestamp(hour))", "max(dirty)", "max(clean)"},
	}
	queries := []struct {
		to   **cursor
		q    clickhouse.Select
		like []Column
	}{
		{&k.uses, clickhouse.Select{Table: tableUsage, OrderBy: useOrder, Where: []clickhouse.Cond{k.upTo()}}, append(violationRow()[:12:12], columnsOf(uses.rows(), "bytes")...)},
		{&k.states, clickhouse.Select{Table: tableKeyStates, OrderBy: []string{"account_id", "key_id", "effective_at", "event_id"}, Where: []clickhouse.Cond{k.upTo()}}, states.rows().Columns},
		{&k.newest, clickhouse.Select{Table: tableAPIKeys, Final: true, OrderBy: []string{"account_id", "id"}}, newest.rows().Columns},
		{&k.violations, clickhouse.Select{Table: tableViolations, Final: true, OrderBy: useOrder}, append(violationRow(), Column{"retracted", []uint8{}})},
		{&k.earlier, marks, buckets.rows().Columns},
		{&k.hours, clickhouse.Select{
			Table: tableUsageHourly, Final: true, OrderBy: []string{"account_id", "key_id", "hour", "iam_id", "action"},
			Columns: []string{"account_id", "key_id", "toInt64(toUnixTimestamp(hour))", "iam_id", "action", "version", "count", "failures", "bytes", "finalizeAggregation(addresses)"},
		}, hourly},
		{&k.marks, marks, (&bucketRows{}).rows().Columns},
	}
	for _, q := range queries {
		c, err := openCursor(ctx, k.store, q.q, q.like)
		if *q.to = c; err != nil {
			return err
		}
	}
	return nil
}

// refOf returns the key that the current row of a cursor is about.
func refOf(c *cursor) KeyRef {
	name := "key_id"
	if c.table == tableAPIKeys {
		name = "id"
	}
	return KeyRef{Account: domain.AccountID(value[string](c, "account_id")), Key: domain.KeyID(value[string](c, name))}
}

func (k KeyRef) compare(o KeyRef) int {
	if c := strings.Compare(string(k.Account), string(o.Account)); c != 0 {
		return c
	}
	return strings.Compare(string(k.Key), string(o.Key))
}

// nextKey returns the least key that any cursor stands at.
func (k *keyVerifier) nextKey() (KeyRef, bool) {
	var (
		least KeyRef
		found bool
	)
	for _, c := range []*cursor{k.uses, k.states, k.newest, k.violations, k.hours} {
		if !c.valid {
			continue
		}
		if ref := refOf(c); !found || ref.compare(least) < 0 {
			least, found = ref, true
		}
	}
	return least, found
}

// enter reads the hours of account, if the walk has come to a new one.
func (k *keyVerifier) enter(account domain.AccountID) error {
	if k.entered && k.account == account {
		return nil
	}
	k.leave()
	k.account, k.entered, k.buckets = account, true, map[int64]*bucket{}
	return k.enterMarks(account, false)
}

// enterMarks reads the marks up to those of account, or all that are left. Those of
// accounts before it belong to no use.
func (k *keyVerifier) enterMarks(account domain.AccountID, all bool) error {
	for k.marks.valid {
		of := domain.AccountID(value[string](k.marks, "account_id"))
		if of > account && !all {
			return nil
		}
		b := &bucket{dirty: value[uint64](k.marks, "dirty"), clean: value[uint64](k.marks, "clean")}
		moved, err := k.movedSince(of, b)
		if err != nil {
			return err
		}
		b.moved = moved
		if hour := value[int64](k.marks, "hour"); of == account && !all {
			k.buckets[hour] = b
		} else {
			k.mark(of, hour, b)
		}
		if err := k.marks.next(); err != nil {
			return err
		}
	}
	return nil
}

// movedSince reports whether the hour at which marks stands had other marks earlier.
func (k *keyVerifier) movedSince(account domain.AccountID, b *bucket) (bool, error) {
	hour := value[int64](k.marks, "hour")
	for k.earlier.valid {
		of, at := domain.AccountID(value[string](k.earlier, "account_id")), value[int64](k.earlier, "hour")
		if of > account || of == account && at > hour {
			break
		}
		if of == account && at == hour {
			return value[uint64](k.earlier, "dirty") != b.dirty || value[uint64](k.earlier, "clean") != b.clean, nil
		}
		if err := k.earlier.next(); err != nil {
			return false, err
		}
	}
	return true, nil
}

// leave compares the marks of the account that the walk leaves.
func (k *keyVerifier) leave() {
	for hour, b := range k.buckets {
		k.mark(k.account, hour, b)
	}
	k.buckets = nil
}

// mark compares when an hour was touched with what its uses say.
func (k *keyVerifier) mark(account domain.AccountID, hour int64, b *bucket) {
	switch {
	case b.dirty > k.last || b.clean > k.last:
		return // Written since.
	case b.compared(k.last):
		k.report.Hours++
	default:
		k.report.HoursDirty++
	}
	if b.dirty != b.touched && (b.dirty < b.touched || !k.mayBeGone(time.Unix(hour, 0)) && !k.blocks.marked(b.dirty)) {
		k.differ(Difference{Where: tableUsageBuckets, Block: b.dirty, What: fmt.Sprintf(
			"hour %s of account %s is marked as touched by block %d, its uses say %d", hourText(hour), account, b.dirty, b.touched)})
	}
}

func hourText(hour int64) string { return time.Unix(hour, 0).UTC().Format(time.RFC3339) }

// key compares everything about one key.
func (k *keyVerifier) key(key KeyRef) error {
	history, err := k.history(key)
	if err != nil {
		return err
	}
	sums := &hourSums{keyVerifier: k, key: key}
	for k.uses.valid && refOf(k.uses) == key {
		if err := k.use(history); err != nil {
			return err
		}
		if err := sums.add(); err != nil {
			return err
		}
		if err := k.uses.next(); err != nil {
			return err
		}
	}
	if err := sums.flush(); err != nil {
		return err
	}
	if err := k.extraHours(key, func(hourKey) bool { return true }); err != nil {
		return err
	}
	return k.extraViolations(func() bool { return refOf(k.violations) == key })
}

// history reads the states of key and compares the newest with api_keys.
func (k *keyVerifier) history(key KeyRef) ([]StateAt, error) {
	var (
		history []StateAt
		newest  apiKeyRows
		best    uint64
	)
	for k.states.valid && refOf(k.states) == key {
		f, err := k.stateFact()
		if err != nil {
			return nil, err
		}
		block := value[uint64](k.states, "block")
		history = append(history, StateAt{EffectiveAt: f.rec.Meta.EffectiveAt, EventID: f.rec.ID.String(), Block: block, State: *f.key})
		if version := stateVersion(f.rec.Meta.EffectiveAt, f.rec.ID); version >= best {
			best = version
			newest.reset()
			newest.append(f, block)
		}
		if err := k.states.next(); err != nil {
			return nil, err
		}
	}
	return history, k.compareNewest(key, newest.rows())
}

// stateFact makes the fact of a key event again from its row.
func (k *keyVerifier) stateFact() (*fact, error) {
	f := &fact{text: value[string](k.states, "state"), key: &domain.KeyState{}}
	if err := json.Unmarshal([]byte(f.text), f.key); err != nil {
		return nil, fmt.Errorf("state of key %s: %w", value[string](k.states, "key_id"), err)
	}
	id, err := domain.ParseEventID(value[string](k.states, "event_id"))
	if err != nil {
		return nil, fmt.Errorf("state of key %s: %w", value[string](k.states, "key_id"), err)
	}
	f.rec = domain.Recorded{
		Position: value[uint64](k.states, "position"), ID: id, RecordedAt: time.UnixMilli(value[int64](k.states, "recorded_at")),
		Meta: domain.Metadata{EffectiveAt: time.UnixMilli(value[int64](k.states, "effective_at")).UTC()},
	}
	return f, nil
}

func (k *keyVerifier) compareNewest(key KeyRef, want Rows) error {
	seen := false
	for k.newest.valid && refOf(k.newest) == key {
		d := Difference{Where: tableAPIKeys, Position: value[uint64](k.newest, "position"), Block: value[uint64](k.newest, "block")}
		switch {
		case d.Block > k.last: // Changed since.
		case seen || want.Len() == 0:
			d.What = fmt.Sprintf("key %s of account %s has no such state", key.Key, key.Account)
			k.differ(d)
		default:
			if d.What = k.newest.differs(want, 0); d.What != "" {
				d.What = fmt.Sprintf("key %s of account %s: %s", key.Key, key.Account, d.What)
				k.differ(d)
			}
		}
		seen = true
		if err := k.newest.next(); err != nil {
			return err
		}
	}
	if !seen && want.Len() > 0 {
		k.differ(Difference{Where: tableAPIKeys, What: fmt.Sprintf("key %s of account %s is missing", key.Key, key.Account)})
	}
	return nil
}

// use judges the current use and compares the judgement with the table.
func (k *keyVerifier) use(history []StateAt) error {
	at := time.UnixMilli(value[int64](k.uses, "time")).UTC()
	status, state, violation := StatusOfUse(history, at)
	place := placeOf(k.uses)
	if err := k.extraViolations(func() bool { return placeOf(k.violations).before(place) }); err != nil {
		return err
	}
	found := k.violations.valid && placeOf(k.violations) == place
	since := found && value[uint64](k.violations, "block") > k.last
	listed := found && value[uint8](k.violations, "retracted") == 0
	d := Difference{Where: tableViolations, Position: place.row.position, Index: place.row.idx}
	switch {
	case since: // Judged, or taken back, since.
	case !listed && violation:
		d.What = fmt.Sprintf("use of %s key %s at %s is not listed", status, place.ref.Key, at.Format(time.RFC3339Nano))
		k.differ(d)
	case !listed:
	case !violation:
		d.What = fmt.Sprintf("use of %s key %s at %s is listed", status, place.ref.Key, at.Format(time.RFC3339Nano))
		k.differ(d)
	default:
		if d.What = k.violations.differs(k.violationRows(history, status, state, at), 0); d.What != "" {
			k.differ(d)
		}
	}
	if !found {
		return nil
	}
	return k.violations.next()
}

// violationRows is the row of the current use as a violation. Its block is the last
// one that brought the use or a state at or before its time.
func (k *keyVerifier) violationRows(history []StateAt, status domain.KeyStatus, state StateAt, at time.Time) Rows {
	block := value[uint64](k.uses, "block")
	for _, s := range history {
		if !s.EffectiveAt.After(at) {
			block = max(block, s.Block)
		}
	}
	columns := violationRow()
	for i := range columns[:12] {
		switch p := k.uses.row[i].(type) {
		case *string:
			columns[i].Values = []string{*p}
		case *int64:
			columns[i].Values = []int64{*p}
		case *uint32:
			columns[i].Values = []uint32{*p}
		case *uint64:
			columns[i].Values = []uint64{*p}
		}
	}
	columns[k.violations.at["block"]].Values = []uint64{block}
	columns[12].Values = []string{string(status)}
	columns[13].Values = []bool{state.State.Locked}
	columns[14].Values = []int64{state.EffectiveAt.UnixMilli()}
	columns[15].Values = []string{state.EventID}
	return Rows{Table: tableViolations, Columns: columns}
}

// extraViolations reports the listed violations as long as are is true.
func (k *keyVerifier) extraViolations(are func() bool) error {
	for k.violations.valid && are() {
		place := placeOf(k.violations)
		if block := value[uint64](k.violations, "block"); block <= k.last && value[uint8](k.violations, "retracted") == 0 && !k.mayBeGone(time.UnixMilli(place.time)) {
			k.differ(Difference{Where: tableViolations, Position: place.row.position, Index: place.row.idx, Block: block, What: "no such use"})
		}
		if err := k.violations.next(); err != nil {
			return err
		}
	}
	return nil
}

// usePlace is a use's place in the order of table usage.
type usePlace struct {
	ref  KeyRef
	time int64
	row  rowKey
}

func placeOf(c *cursor) usePlace {
	return usePlace{ref: refOf(c), time: value[int64](c, "time"), row: keyOf(c)}
}

func (p usePlace) before(o usePlace) bool {
	if c := p.ref.compare(o.ref); c != 0 {
		return c < 0
	}
	if p.time != o.time {
		return p.time < o.time
	}
	return p.row.before(o.row)
}
