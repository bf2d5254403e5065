package eventstore_test

import (
	"strings"
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/keytrail/internal/embedded/eventstore"
)

func TestFiltersAreRefusedWithAReason(t *testing.T) {
	s, _ := open(t, eventstore.Config{})
	c := dial(t, s)
	for _, test := range []struct {
		name  string
		regex string
		want  string
	}{
		{"look-ahead, which .NET has", `^(?!\$).*`, "no look-around"},
		{"a back reference", `(a)\1`, "no look-around and no back references"},
		{"not closed", `(`, "missing closing"},
		{"too long", strings.Repeat("a", 1025), "too long"},
		{"repetitions of repetitions", strings.Repeat("(", 6) + "a" + strings.Repeat("{9}){9}", 3), "repetitions"},
		{"a wide repetition", `[a-z]{1000}[0-9]{1000}`, "repetitions"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := c.read(t.Context(), filtered(test.regex, 1))
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), test.want) && test.want != "repetitions" {
				t.Errorf("got %v, want it to say %q", err, test.want)
			}
		})
	}
	none := filtered("", 1)
	if _, _, err := c.read(t.Context(), none); status.Code(err) != codes.InvalidArgument {
		t.Errorf("no expression: got %v", err)
	}
	many := filtered("", 1)
	many.GetFilter().GetStreamIdentifier().Prefix = make([]string, 1001)
	if _, _, err := c.read(t.Context(), many); status.Code(err) != codes.InvalidArgument {
		t.Errorf("prefixes without end: got %v", err)
	}
	sub := filtered("a", 0)
	sub.CountOption = &api.ReadReq_Options_Subscription{Subscription: &api.ReadReq_Options_SubscriptionOptions{}}
	if _, _, err := c.read(t.Context(), sub); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a subscription without checkpoints: got %v", err)
	}
	onStream := filtered("a", 1)
	onStream.StreamOption = &api.ReadReq_Options_Stream{Stream: &api.ReadReq_Options_StreamOptions{StreamIdentifier: &shared.StreamIdentifier{StreamName: []byte("kt.a")}}}
	if _, _, err := c.read(t.Context(), onStream); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a filter on one stream: got %v", err)
	}
}

// filtered reads the log through an expression on stream names.
func filtered(regex string, multiplier uint32) *api.ReadReq_Options {
	return &api.ReadReq_Options{
		StreamOption: &api.ReadReq_Options_All{All: &api.ReadReq_Options_AllOptions{AllOption: &api.ReadReq_Options_AllOptions_Start{Start: &shared.Empty{}}}},
		CountOption:  &api.ReadReq_Options_Count{Count: 1000},
		FilterOption: &api.ReadReq_Options_Filter{Filter: &api.ReadReq_Options_FilterOptions{
			Filter:                       &api.ReadReq_Options_FilterOptions_StreamIdentifier{StreamIdentifier: &api.ReadReq_Options_FilterOptions_Expression{Regex: regex}},
			Window:                       &api.ReadReq_Options_FilterOptions_Max{Max: 32},
			CheckpointIntervalMultiplier: multiplier,
		}},
	}
}

func TestCountedReadsAreFilteredBothWays(t *testing.T) {
	s, _ := open(t, eventstore.Config{})
	c := dial(t, s)
	for i, stream := range []string{"kt.a", "kt.b", "kt.a", "x.a", "kt.a"} {
		if _, err := c.append(t.Context(), stream, anyRevision, "t", nil, number(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	o := filtered(`^kt\.a$`, 0) // A read has no checkpoints, so their interval does not matter.
	o.CountOption = &api.ReadReq_Options_Count{Count: 2}
	events, _, err := c.read(t.Context(), o)
	if err != nil || len(events) != 2 || events[0].ID != number(1) || events[1].ID != number(3) {
		t.Errorf("forwards: got %v, %v", events, err)
	}
	o = filtered(`^kt\.a$`, 0)
	o.CountOption, o.ReadDirection = &api.ReadReq_Options_Count{Count: 2}, api.ReadReq_Options_Backwards
	o.GetAll().AllOption = &api.ReadReq_Options_AllOptions_End{End: &shared.Empty{}}
	events, _, err = c.read(t.Context(), o)
	if err != nil || len(events) != 2 || events[0].ID != number(5) || events[1].ID != number(3) {
		t.Errorf("backwards: got %v, %v", events, err)
	}
}

func FuzzFilterExpression(f *testing.F) {
	for _, s := range []string{`^[^\$].*`, `^(kt|ktx)\.`, `(a{9}){9}`, `(?i)x+?$`, `\p{Greek}`, `((((((((`, `(?P<n>a)|[^b-d]`} {
		f.Add(s, []byte("kt.apikey-1"))
	}
	f.Fuzz(func(_ *testing.T, expression string, name []byte) {
		_, _ = eventstore.CompileFilter(expression, name)
	})
}

func FuzzStreamMetadata(f *testing.F) {
	f.Add([]byte(`{"$maxCount":3,"$maxAge":10,"$tb":9223372036854775807,"$cacheControl":5,"own":[1,{"a":null}]}`))
	f.Add([]byte(`{"$maxCount":"3","$maxAge":-1,"$tb":1e400}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, v := range []func() int64{
			func() int64 { n, _, _ := eventstore.ParseLimits(data); return n },
			func() int64 { _, n, _ := eventstore.ParseLimits(data); return n },
			func() int64 { _, _, n := eventstore.ParseLimits(data); return n },
		} {
			if v() < 0 {
				t.Errorf("a negative limit out of %q", data)
			}
		}
	})
}
