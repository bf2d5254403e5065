package domain

import (
	"strings"
	"time"
)

// expiryLayout is how an expiry is answered; [ParseExpiry] also reads it without
// seconds, as IBM writes it.
const expiryLayout = "2006-01-02T15:04:05-0700"

// expiryYearMax keeps expiry dates inside what every store and table can hold.
const expiryYearMax = 2261

// NextEffective returns the effective time of the next fact on a stream whose newest
// has effective time last: now to the millisecond, but always later than last, so
// that the order of effective times is the order of the stream.
func NextEffective(now, last time.Time) time.Time {
	now = now.UTC().Truncate(time.Millisecond)
	if floor := last.UTC().Truncate(time.Millisecond).Add(time.Millisecond); !last.IsZero() && now.Before(floor) {
		return floor
	}
	return now
}

// ParseExpiry reads an expiry date as IBM's API takes it, yyyy-MM-ddTHH:mm+0000, also
// with seconds, with a zone written +00:00 or Z. It returns UTC to the second.
func ParseExpiry(s string) (time.Time, error) {
	for _, layout := range []string{
		"2006-01-02T15:04-0700", expiryLayout, "2006-01-02T15:04Z07:00", time.RFC3339,
	} {
		t, err := time.Parse(layout, s)
		if err != nil {
			continue
		}
		if t = t.UTC().Truncate(time.Second); t.Year() > expiryYearMax {
			return time.Time{}, Errorf(Invalid, "must not lie after the year %d", expiryYearMax).
				WithField("expires_at").WithMessageCode("invalid_expires_at")
		}
		return t, nil
	}
	return time.Time{}, Errorf(Invalid, "must look like 2027-01-31T23:59+0000").
		WithField("expires_at").WithMessageCode("invalid_expires_at")
}

// FormatExpiry returns t as the API answers it, or "" for nil. The seconds are shown
// only where there are some.
func FormatExpiry(t *time.Time) string {
	if t == nil {
		return ""
	}
	s := t.UTC().Format(expiryLayout)
	return strings.Replace(s, ":00+", "+", 1)
}
