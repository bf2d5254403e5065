//go:build !faults

package main

import "example.com/keytrail/projections"

// decode returns how the tables read events: as this program does. A build with the tag
// 'faults' has another, which is blind to some, as an older program is.
func decode() projections.Decode { return nil }
