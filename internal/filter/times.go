package filter

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// ErrTime is returned by [ParseTime] for text that is no time.
var ErrTime = errors.New("not a time: give RFC 3339, a date, now, or a time relative to now such as -7d, -24h, -30m")

// relativeMax bounds how far from now a relative time may be.
const relativeMax = 200 * 365 * 24 * time.Hour

// yearMin and yearMax bound the times that the tables can hold.
const (
	yearMin = 1970
	yearMax = 2100
)

// ParseTime reads a time in one of three forms: absolute (RFC 3339, with or without
// seconds and zone, UTC if none is said), a date (its first moment in UTC), or
// relative to now: "now", "-90s", "-30m", "-24h", "-7d", "-4w". A zero now refuses
// the relative forms. The result is UTC, to the millisecond.
func ParseTime(text string, now time.Time) (time.Time, error) {
	t, err := parseTime(strings.TrimSpace(text), now)
	if err != nil {
		return time.Time{}, err
	}
	t = t.UTC().Truncate(time.Millisecond)
	if t.Year() < yearMin || t.Year() >= yearMax {
		return time.Time{}, ErrTime
	}
	return t, nil
}

func parseTime(text string, now time.Time) (time.Time, error) {
	if text == "now" || strings.HasPrefix(text, "-") || strings.HasPrefix(text, "+") {
		return relative(text, now)
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05-0700", "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, ErrTime
}

// relative reads now, -7d and their like. The amount is bounded far below where the
// sum could leave the range of a duration.
func relative(text string, now time.Time) (time.Time, error) {
	if now.IsZero() {
		return time.Time{}, ErrTime
	}
	if text == "now" {
		return now, nil
	}
	if len(text) < len("-1d") {
		return time.Time{}, ErrTime
	}
	unit := unitOf(text[len(text)-1])
	n, err := strconv.ParseUint(text[1:len(text)-1], 10, 32)
	if err != nil || unit == 0 || n > uint64(relativeMax/unit) { //nolint:gosec // A quotient of positive numbers.
		return time.Time{}, ErrTime
	}
	d := time.Duration(n) * unit
	if text[0] == '-' {
		d = -d
	}
	return now.Add(d), nil
}

func unitOf(c byte) time.Duration {
	switch c {
	case 's':
		return time.Second
	case 'm':
		return time.Minute
	case 'h':
		return time.Hour
	case 'd':
		return 24 * time.Hour
	case 'w':
		return 7 * 24 * time.Hour
	}
	return 0
}
