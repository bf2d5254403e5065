package eventstore

import (
	"bytes"
	"regexp"

	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// windowDefault is how many events EventStoreDB looks at in one go if not told.
const windowDefault = 32

// filter chooses events by stream name or type. A nil filter takes all.
type filter struct {
	byType   bool
	prefixes [][]byte
	regex    *regexp.Regexp
	every    uint64 // A checkpoint is due after so many events were considered.
}

func newFilter(o *api.ReadReq_Options_FilterOptions) (*filter, error) {
	if o == nil {
		return nil, nil //nolint:nilnil // No filter is a filter that takes all.
	}
	f := &filter{}
	x := o.GetStreamIdentifier()
	if t := o.GetEventType(); t != nil {
		x, f.byType = t, true
	}
	switch {
	case x.GetRegex() != "":
		re, err := regexp.Compile(x.GetRegex())
		if err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "filter: %v", err)
		}
		f.regex = re
	case len(x.GetPrefix()) > 0:
		for _, p := range x.GetPrefix() {
			f.prefixes = append(f.prefixes, []byte(p))
		}
	default:
		return nil, status.Error(codes.InvalidArgument, "filter: neither a prefix nor a regular expression")
	}
	window := uint64(windowDefault)
	if m, ok := o.GetWindow().(*api.ReadReq_Options_FilterOptions_Max); ok {
		window = uint64(m.Max)
	}
	f.every = window * uint64(o.GetCheckpointIntervalMultiplier())
	if f.every == 0 {
		return nil, status.Error(codes.InvalidArgument, "filter: window and checkpoint interval must not be zero")
	}
	return f, nil
}

func (f *filter) match(e *frame) bool {
	if f == nil {
		return true
	}
	v := e.stream
	if f.byType {
		v = e.typ
	}
	if f.regex != nil {
		return f.regex.Match(v)
	}
	for _, p := range f.prefixes {
		if bytes.HasPrefix(v, p) {
			return true
		}
	}
	return false
}
