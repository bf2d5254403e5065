package eventlog_test

import (
	"os"
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"

	"example.com/keytrail/internal/embedded/eventstore"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/eventlog/eventlogtest"
)

// rawClient connects with the unmodified client until the test ends.
func rawClient(tb testing.TB, connection, address string) *esdb.Client {
	tb.Helper()
	conf, err := esdb.ParseConnectionString(connection)
	if err != nil {
		tb.Fatal(err)
	}
	if address != "" {
		conf.Address = address
	}
	conf.Logger = esdb.NoopLogging()
	c, err := esdb.NewClient(conf)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Error(err)
		}
	})
	return c
}

func TestEmbeddedStoreKeepsTheContract(t *testing.T) {
	cfg := eventstore.Config{Dir: t.TempDir(), Socket: socketPath(t), MaxAppendBytes: 256 << 10}
	s := startServer(t, cfg)
	eventlogtest.Run(t, eventlogtest.Target{
		Open: func(tb testing.TB) *eventlog.Log {
			tb.Helper()
			l, err := eventlog.Open(tb.Context(), eventlog.Config{Socket: s.Address(), MaxAppendBytes: cfg.MaxAppendBytes, Logger: testLogger(tb)})
			if err != nil {
				tb.Fatal(err)
			}
			tb.Cleanup(func() {
				if err := l.Close(); err != nil {
					tb.Error(err)
				}
			})
			return l
		},
		Client: func(tb testing.TB) *esdb.Client {
			tb.Helper()
			return rawClient(tb, "esdb://socket.invalid:2113?tls=false", "unix://"+s.Address())
		},
		MaxAppendBytes: cfg.MaxAppendBytes,
		Restart: func(tb testing.TB) {
			tb.Helper()
			stopServer(tb, s)
			s = startServer(t, cfg) // Until the whole test ends.
		},
	})
}

// KEYTRAIL_TEST_ESDB names a real server, whose append limit must be its default.
func TestRealServerKeepsTheContract(t *testing.T) {
	connection := os.Getenv("KEYTRAIL_TEST_ESDB")
	if connection == "" {
		t.Skip("KEYTRAIL_TEST_ESDB names no EventStoreDB; the embedded store is tested all the same")
	}
	eventlogtest.Run(t, eventlogtest.Target{
		Open: func(tb testing.TB) *eventlog.Log {
			tb.Helper()
			l, err := eventlog.Open(tb.Context(), eventlog.Config{Connection: connection, Logger: testLogger(tb)})
			if err != nil {
				tb.Fatal(err)
			}
			tb.Cleanup(func() {
				if err := l.Close(); err != nil {
					tb.Error(err)
				}
			})
			return l
		},
		Client: func(tb testing.TB) *esdb.Client {
			tb.Helper()
			return rawClient(tb, connection, "")
		},
		MaxAppendBytes: 1 << 20,
	})
}
