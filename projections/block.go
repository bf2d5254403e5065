package projections

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"slices"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
)

// Limits bound a block. The zero value means the defaults of [DefaultLimits].
type Limits struct {
	// Rows and Bytes end a block that has as many, counted over all tables and after
	// decoding. One event is never cut: it may exceed both.
	Rows, Bytes int
	// Delay ends a block that long after its first event; KeysDelay if it holds no
	// uses. While events keep coming blocks are stretched, so that writing them takes
	// at most an eighth of the time, or half of it where somebody waits for the tables;
	// but no block is held longer than DelayMax.
	Delay, KeysDelay, DelayMax time.Duration
}

// DefaultLimits are those of docs/exactness.md.
func DefaultLimits() Limits {
	return Limits{Rows: 100_000, Bytes: 64 << 20, Delay: 250 * time.Millisecond, KeysDelay: 50 * time.Millisecond, DelayMax: time.Second}
}

// poisoned is an event that is set aside.
type poisoned struct {
	raw eventlog.Raw
	err error
}

// block is the rows of consecutive events, for all tables.
type block struct {
	number   uint64
	from, to uint64 // Positions: after the event at from, up to the one at to.
	events   uint64
	poison   []poisoned
	bytes    int
	lastTime time.Time // recorded_at of the last event.
	month    int       // Of recorded_at; 0 before the first event.
	replayed []uint64  // Positions, where the block holds events that were set aside before.
	carried  []Carried // What was not made from events.

	usage    usageRows
	activity activityRows
	states   keyStateRows
	keys     apiKeyRows
	findings findingRows
	buckets  bucketRows

	hash hash.Hash
}

// start empties b and makes it block number, after the event at from.
func (b *block) start(number, from uint64) {
	b.number, b.from, b.to = number, from, from
	b.events, b.bytes, b.month, b.replayed, b.carried = 0, 0, 0, nil, nil
	b.poison = truncated(b.poison)
	b.lastTime = time.Time{}
	b.usage.reset()
	b.activity.reset()
	b.states.reset()
	b.keys.reset()
	b.findings.reset()
	b.buckets.reset()
	if b.hash == nil {
		b.hash = sha256.New()
	}
	b.hash.Reset()
}

// fits reports whether f may join b. A block keeps to one month of arrival, so that
// each insert goes into one partition and is there whole or not at all.
func (b *block) fits(f *fact, limits Limits) bool {
	if b.events == 0 {
		return true
	}
	return b.rowCount()+len(f.uses) <= limits.Rows && b.month == monthOf(f.raw.RecordedAt)
}

// asideMax bounds the events of one block that are set aside: its plan names each.
const asideMax = 1000

// full reports whether b has reached its limits.
func (b *block) full(limits Limits) bool {
	return len(b.poison) >= asideMax || b.rowCount() >= limits.Rows || b.bytes >= limits.Bytes || b.events >= uint64(limits.Rows) //nolint:gosec // A limit is positive.
}

func monthOf(t time.Time) int {
	t = t.UTC()
	return t.Year()*12 + int(t.Month())
}

// append adds the rows of f.
func (b *block) append(f *fact) {
	b.to = max(b.to, f.raw.Position)
	b.lastTime = f.raw.RecordedAt
	b.events++
	b.bytes += len(f.raw.Data)
	b.month = monthOf(f.raw.RecordedAt)
	b.hashEvent(&f.raw)
	if f.poison != nil {
		b.poison = append(b.poison, poisoned{raw: f.raw, err: f.poison})
		return
	}
	if f.carriedFrom != "" {
		b.carry(f)
	}
	b.bytes += b.usage.append(f, b.number)
	b.bytes += b.activity.append(f, b.number)
	b.bytes += b.states.append(f, b.number)
	b.bytes += b.keys.append(f, b.number)
	b.bytes += b.findings.append(f, b.number)
	b.buckets.append(f, b.number)
}

// hashEvent adds the event's place, name and bytes to the block's hash, each text
// with its length before it.
func (b *block) hashEvent(r *eventlog.Raw) {
	var head [32]byte
	binary.BigEndian.PutUint64(head[:8], r.Position)
	binary.BigEndian.PutUint64(head[8:16], r.Revision)
	copy(head[16:], r.ID[:])
	b.hash.Write(head[:])
	for _, s := range [][]byte{[]byte(r.Stream), []byte(r.Type), r.Data, r.Meta} {
		b.hash.Write(binary.BigEndian.AppendUint64(nil, uint64(len(s))))
		b.hash.Write(s)
	}
}

// aside returns the positions of the events that are set aside.
func (b *block) aside() []uint64 {
	if len(b.poison) == 0 {
		return nil
	}
	out := make([]uint64, 0, len(b.poison))
	for _, p := range b.poison {
		out = append(out, p.raw.Position)
	}
	return out
}

// sum returns the block's hash in hex.
func (b *block) sum() string { return hex.EncodeToString(b.hash.Sum(nil)) }

// rowCount counts the rows of the tables that grow with the log.
func (b *block) rowCount() int {
	return len(b.usage.time) + len(b.activity.eventTime) + len(b.states.effectiveAt)
}

// tables returns the rows of every table that has any.
func (b *block) tables() []Rows {
	all := []Rows{b.usage.rows(), b.activity.rows(), b.states.rows(), b.keys.rows(), b.findings.rows(), b.buckets.rows()}
	var out []Rows
	for _, r := range all {
		if r.Len() > 0 {
			out = append(out, r)
		}
	}
	return out
}

// rowsPerTable returns the number of rows for each table that has any.
func (b *block) rowsPerTable() map[string]uint64 {
	out := map[string]uint64{}
	for _, r := range b.tables() {
		out[r.Table] = uint64(r.Len()) //nolint:gosec // A length.
	}
	return out
}

// countedTables are the tables whose rows are counted; see [counted].
func countedTables() []string { return []string{tableUsage, tableActivity, tableKeyStates} }

// counted reports whether the rows of a block can be counted in a table: the other
// tables replace rows, and writing one twice changes nothing there.
func counted(table string) bool {
	return slices.Contains(countedTables(), table)
}

// maxUseTime returns the newest time of a use in b, in milliseconds.
func (b *block) maxUseTime() int64 {
	var newest int64
	for _, t := range b.usage.time {
		newest = max(newest, t)
	}
	return newest
}

// KeyRef names a key within its account.
type KeyRef struct {
	Account domain.AccountID
	Key     domain.KeyID
}

// changedKeys returns the keys that got a state in b.
func (b *block) changedKeys() map[KeyRef]KeyChange {
	r := &b.states
	out := make(map[KeyRef]KeyChange, len(r.keyID))
	for i, id := range r.keyID {
		account, _ := r.account.values[i].(string)
		k := KeyRef{Account: domain.AccountID(account), Key: domain.KeyID(id)}
		c, known := out[k]
		if at := r.effectiveAt[i]; !known || at < c.Since {
			c.Since = at
		}
		c.Made = c.Made || r.made[i]
		c.Ends = c.Ends || r.disabled[i] || r.deleted[i] || r.expiresAt[i] != nil
		out[k] = c
	}
	return out
}

// RowsOf returns the rows of one event as those of the given block, for each table
// that gets any. It reads nothing but raw, which is what makes a rebuild give the
// same tables as the live run. An event that cannot be projected is an error.
func RowsOf(raw eventlog.Raw, number uint64) ([]Rows, error) {
	dec, err := newDecoder(nil)
	if err != nil {
		return nil, err
	}
	f := dec.fact(raw)
	if f.poison != nil {
		return nil, f.poison
	}
	b := &block{}
	b.start(number, 0)
	b.append(&f)
	return b.tables(), nil
}
