package projections

import "example.com/keytrail/domain"

const tableUsageBuckets = "usage_buckets"

// hourMS is the length of a bucket.
const hourMS = 3600 * 1000

// Bucket is one hour of one account's usage; Hour is in seconds since 1970.
type Bucket struct {
	Account domain.AccountID
	Hour    int64
}

// bucketRows are the rows of table usage_buckets: one for each hour that the block
// touched, marking it dirty.
type bucketRows struct {
	seen         map[Bucket]struct{}
	last         Bucket
	account      dict
	hour         []int64
	dirty, clean []uint64
}

func (r *bucketRows) append(f *fact, block uint64) {
	for i := range f.uses {
		u := &f.uses[i]
		b := Bucket{Account: u.Account, Hour: u.Time.UnixMilli() / hourMS * 3600}
		if b == r.last && len(r.seen) > 0 {
			continue
		}
		r.last = b
		if _, ok := r.seen[b]; ok {
			continue
		}
		if r.seen == nil {
			r.seen = make(map[Bucket]struct{})
		}
		r.seen[b] = struct{}{}
		r.account.add(string(b.Account))
		r.hour = append(r.hour, b.Hour)
		r.dirty = append(r.dirty, block)
		r.clean = append(r.clean, 0)
	}
}

func (r *bucketRows) rows() Rows {
	return Rows{Table: tableUsageBuckets, Columns: []Column{
		{"account_id", r.account.values},
		{"hour", r.hour},
		{"dirty", r.dirty},
		{"clean", r.clean},
	}}
}

func (r *bucketRows) reset() {
	clear(r.seen)
	r.last = Bucket{}
	r.account.reset()
	r.hour, r.dirty, r.clean = r.hour[:0], r.dirty[:0], r.clean[:0]
}
