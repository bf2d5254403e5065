//go:build faults

package main

import (
	"fmt"
	"os"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/projections"
)

// blindEnv names the type of events that the tables cannot read.
const blindEnv = "KEYTRAIL_FAULT_BLIND"

// decode returns how the tables read events: as an older program would that does not know
// the type which the environment names.
func decode() projections.Decode {
	blind := os.Getenv(blindEnv)
	if blind == "" {
		return nil
	}
	return func(raw eventlog.Raw) (domain.Recorded, error) {
		if raw.Type == blind {
			return domain.Recorded{}, fmt.Errorf("unknown event %q", raw.Type)
		}
		return eventlog.Decode(raw)
	}
}
