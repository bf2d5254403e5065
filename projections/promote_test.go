package projections_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/projections"
)

// lateLedger is a log on which one generation's ledger is not followed until it is released.
type lateLedger struct {
	projections.Log

	stream   string
	released chan struct{}
}

func (l lateLedger) Subscribe(ctx context.Context, opt eventlog.SubscribeOptions) (projections.Subscription, error) {
	if slices.Contains(opt.Prefixes, l.stream) {
		select {
		case <-l.released:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return l.Log.Subscribe(ctx, opt)
}

// TestANodeMovesToNewTablesOnceTheyHoldWhatItToldBefore: a reader that is behind with the new
// tables goes on answering by the old ones, which hold more, though others have moved on.
func TestANodeMovesToNewTablesOnceTheyHoldWhatItToldBefore(t *testing.T) {
	c := newCluster(t, 39)
	worker, stop := c.node()
	defer stop()
	late := lateLedger{Log: projections.NewLog(c.log), stream: projections.LedgerStream("two"), released: make(chan struct{})}
	api, stopAPI := c.node(reader, func(cfg *projections.NodeConfig) { cfg.Log = late })
	defer stopAPI()
	last := c.tell(30)
	c.await(worker, last)
	c.await(api, last)
	if err := worker.Rebuild(t.Context(), "two", "ann", false); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the worker moves", func() bool { return worker.Live().Name == "two" })
	waitUntil(t, "the reader knows that others move", func() bool {
		return generationOf(api, "two").State == projections.GenerationLive
	})
	for range 5 { // Whatever it does about it, it does now.
		<-time.After(50 * time.Millisecond)
		if name := api.Live().Name; name != projections.FirstGeneration {
			t.Fatalf("the reader answers by the tables %s, of which it knows nothing yet", name)
		}
		if _, position, _ := api.Live().Tracker.Completed(); position < last {
			t.Fatalf("the reader tells of position %d, and told of %d before", position, last)
		}
	}
	close(late.released)
	waitUntil(t, "the reader moves", func() bool { return api.Live().Name == "two" })
	if _, position, _ := api.Live().Tracker.Completed(); position < last {
		t.Errorf("the reader tells of position %d, and told of %d before", position, last)
	}
}
