package eventlog

import (
	"fmt"

	"github.com/google/uuid"

	"example.com/keytrail/domain"
)

// limitID names the event that sets a stream's limit at one place of its metadata.
func limitID(stream string, exp Expected, n uint64) domain.EventID {
	return domain.EventID(uuid.NewSHA1(uuid.NameSpaceURL, fmt.Appendf(nil, "keytrail:limit:%d:%s:%s:%d", len(stream), stream, exp, n)))
}

// cutID names the event that cuts a stream at one place of its metadata.
func cutID(stream string, exp Expected, before uint64) domain.EventID {
	return domain.EventID(uuid.NewSHA1(uuid.NameSpaceURL, fmt.Appendf(nil, "keytrail:cut:%d:%s:%s:%d", len(stream), stream, exp, before)))
}
