package eventstore

import (
	"bytes"
	"errors"
	"regexp"
	"regexp/syntax"

	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// windowDefault is how many events EventStoreDB looks at in one go if not told.
	windowDefault = 32
	// prefixesMax bounds the prefixes of a filter: each is tried on each event.
	prefixesMax = 1000
	// regexBytesMax and regexStepsMax bound an expression: a match takes at most a step
	// for each byte of the name and each state.
	regexBytesMax = 1024
	regexStepsMax = 2000
)

// filter chooses events by stream name or type. A nil filter takes all.
//
// EventStoreDB compiles expressions with .NET's engine, this server with Go's, which
// never backtracks. What .NET has beyond it (look-around, back references, atomic groups,
// conditions) does not compile and is refused. What compiles means the same, except that
// in .NET \d, \w, \s and \b know all of Unicode and here ASCII, and that there $ also
// matches before a newline at the end.
type filter struct {
	byType   bool
	prefixes [][]byte
	regex    *regexp.Regexp
	every    uint64 // A checkpoint is due after so many events were considered.
}

// newFilter returns the filter that o asks for, or an InvalidArgument. Only a
// subscription has checkpoints.
func newFilter(o *api.ReadReq_Options_FilterOptions, subscribe bool) (*filter, error) {
	if o == nil {
		return nil, nil //nolint:nilnil // No filter is a filter that takes all.
	}
	f := &filter{}
	x := o.GetStreamIdentifier()
	if t := o.GetEventType(); t != nil {
		x, f.byType = t, true
	}
	var err error
	switch {
	case x.GetRegex() != "":
		if f.regex, err = compileFilter(x.GetRegex()); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "filter: %v (the embedded event store compiles filters with Go's RE2, which has no look-around and no back references: rewrite it, filter by prefixes, or use EventStoreDB)", err)
		}
	case len(x.GetPrefix()) > prefixesMax:
		return nil, status.Errorf(codes.InvalidArgument, "filter: %d prefixes, at most %d", len(x.GetPrefix()), prefixesMax)
	case len(x.GetPrefix()) > 0:
		for _, p := range x.GetPrefix() {
			f.prefixes = append(f.prefixes, []byte(p))
		}
	default:
		return nil, status.Error(codes.InvalidArgument, "filter: neither a prefix nor a regular expression")
	}
	if !subscribe {
		return f, nil
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

var (
	errRegexLong  = errors.New("the expression is too long")
	errRegexLarge = errors.New("the expression has too many repetitions")
)

// compileFilter compiles an expression whose cost is bounded: that is counted before the
// compiler writes repetitions out.
func compileFilter(expression string) (*regexp.Regexp, error) {
	if len(expression) > regexBytesMax {
		return nil, errRegexLong
	}
	tree, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return nil, err
	}
	if regexSteps(tree) > regexStepsMax {
		return nil, errRegexLarge
	}
	return regexp.Compile(expression)
}

// regexSteps returns about how many states an expression has.
func regexSteps(x *syntax.Regexp) int {
	steps := 1 + len(x.Rune)
	for _, sub := range x.Sub {
		steps += regexSteps(sub)
		if steps > regexStepsMax {
			return regexStepsMax + 1 // Enough is known, and a product cannot overflow.
		}
	}
	if x.Op == syntax.OpRepeat {
		steps *= max(x.Min, x.Max, 1)
	}
	return steps
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
