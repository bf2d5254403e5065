package projections

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// hourSums sums the uses of one key hour by hour, as they come in time order.
type hourSums struct {
	*keyVerifier

	key  KeyRef
	hour int64
	sums map[hourKey]*hourSum
}

// hourKey names one row of a key's rollups.
type hourKey struct {
	hour        int64
	iam, action string
}

func (k hourKey) compare(o hourKey) int {
	if k.hour != o.hour {
		return int((k.hour - o.hour) / 3600)
	}
	if c := strings.Compare(k.iam, o.iam); c != 0 {
		return c
	}
	return strings.Compare(k.action, o.action)
}

type hourSum struct {
	count, failures, bytes uint64
	addresses              map[string]struct{}
}

// add counts the current use.
func (s *hourSums) add() error {
	hour := value[int64](s.uses, "time") / hourMS * 3600
	if hour != s.hour {
		if err := s.flush(); err != nil {
			return err
		}
		s.hour, s.sums = hour, map[hourKey]*hourSum{}
	}
	b := s.buckets[hour]
	if b == nil {
		b = &bucket{}
		s.buckets[hour] = b
	}
	b.touched = max(b.touched, value[uint64](s.uses, "block"))
	key := hourKey{hour: hour, iam: value[string](s.uses, "iam_id"), action: value[string](s.uses, "action")}
	sum := s.sums[key]
	if sum == nil {
		sum = &hourSum{addresses: map[string]struct{}{}}
		s.sums[key] = sum
	}
	sum.count++
	if value[string](s.uses, "outcome") == "failure" {
		sum.failures++
	}
	sum.bytes += value[uint64](s.uses, "bytes")
	sum.addresses[value[string](s.uses, "source")] = struct{}{}
	return nil
}

// flush compares the sums of the hour that ended with its rollup.
func (s *hourSums) flush() error {
	keys := make([]hourKey, 0, len(s.sums))
	for key := range s.sums {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, hourKey.compare)
	for _, key := range keys {
		if err := s.extraHours(s.key, func(have hourKey) bool { return have.compare(key) < 0 }); err != nil {
			return err
		}
		found := s.atHour(s.key) && currentHour(s.hours) == key
		if b := s.buckets[key.hour]; b.compared(s.last) {
			s.compareHour(key, s.sums[key], b, found)
		}
		if found {
			if err := s.hours.next(); err != nil {
				return err
			}
		}
	}
	clear(s.sums)
	return nil
}

func (s *hourSums) compareHour(key hourKey, want *hourSum, b *bucket, found bool) {
	name := fmt.Sprintf("hour %s of key %s, %s", hourText(key.hour), s.key.Key, key.action)
	if !found {
		s.differ(Difference{Where: tableUsageHourly, Block: b.clean, What: name + " is missing"})
		return
	}
	var wrong []string
	for column, n := range map[string]uint64{
		"version": b.clean, "count": want.count, "failures": want.failures, "bytes": want.bytes, "addresses": uint64(len(want.addresses)),
	} {
		have := value[uint64](s.hours, column)
		if have > n && column != "version" && s.mayBeGone(time.Unix(key.hour, 0)) {
			continue // It holds what the table has dropped.
		}
		if have != n {
			wrong = append(wrong, fmt.Sprintf("%s is %d, the uses give %d", column, have, n))
		}
	}
	if len(wrong) > 0 {
		slices.Sort(wrong)
		s.differ(Difference{Where: tableUsageHourly, Block: b.clean, What: name + ": " + strings.Join(wrong, "; ")})
	}
}

func (k *keyVerifier) atHour(key KeyRef) bool { return k.hours.valid && refOf(k.hours) == key }

func currentHour(c *cursor) hourKey {
	return hourKey{hour: value[int64](c, "hour"), iam: value[string](c, "iam_id"), action: value[string](c, "action")}
}

// extraHours reports the rollup rows of key as long as are is true, where readers
// would take them.
func (k *keyVerifier) extraHours(key KeyRef, are func(hourKey) bool) error {
	for k.atHour(key) && are(currentHour(k.hours)) {
		at := currentHour(k.hours)
		version := value[uint64](k.hours, "version")
		if b := k.buckets[at.hour]; b != nil && b.compared(k.last) && b.clean == version && !k.mayBeGone(time.Unix(at.hour, 0)) {
			k.differ(Difference{Where: tableUsageHourly, Block: version, What: fmt.Sprintf("hour %s of key %s, %s: no such uses", hourText(at.hour), key.Key, at.action)})
		}
		if err := k.hours.next(); err != nil {
			return err
		}
	}
	return nil
}
