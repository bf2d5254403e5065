package eventlog_test

import (
	"os"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	"example.com/keytrail/internal/embedded/eventstore"
	"example.com/keytrail/internal/eventlog"
)

// Watermill's own suite, on what we claim: persistent, in order, at least once.
func TestWatermillSuiteHoldsForWindowOne(t *testing.T) {
	l := openLog(t, startServer(t, eventstore.Config{}))
	group := func(t *testing.T, consumer string) (message.Publisher, message.Subscriber) {
		t.Helper()
		sub, err := eventlog.NewSubscriber(l, eventlog.SubscriberConfig{Consumer: consumer})
		if err != nil {
			t.Fatal(err)
		}
		return eventlog.NewPublisher(l), sub
	}
	shared := "c-" + watermill.NewShortUUID()
	tests.TestPubSub(t,
		tests.Features{
			ConsumerGroups: true, GuaranteedOrder: true, Persistent: true,
			// The same tests with fewer messages; the long form takes minutes under the race
			// detector.
			ForceShort: os.Getenv("KEYTRAIL_LONG") == "",
		},
		func(t *testing.T) (message.Publisher, message.Subscriber) {
			t.Helper()
			return group(t, shared)
		},
		group,
	)
}
