package faults_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/embedded/eventstore"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/faults"
)

// storedBehind starts an event store, a relay before it, and a log that goes through it.
func storedBehind(t *testing.T) (*faults.Relay, *eventlog.Log) {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	srv, err := eventstore.Open(eventstore.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Insecure: true, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	relay, err := faults.NewRelay(t.Context(), srv.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := relay.Close(); err != nil {
			t.Error(err)
		}
	})
	log, err := eventlog.Open(t.Context(), eventlog.Config{Connection: "esdb://" + relay.Address() + "?tls=false", Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	return relay, log
}

func TestEveryFateOfAnAppendLeavesWhatItSays(t *testing.T) {
	relay, log := storedBehind(t)
	for _, test := range []struct {
		fate   faults.Fate
		stored int // After the one attempt that has this fate, without its repeat.
	}{{faults.Pass, 1}, {faults.Fail, 0}, {faults.FailStored, 1}, {faults.Hang, 0}, {faults.HangStored, 1}} {
		t.Run(test.fate.String(), func(t *testing.T) {
			stream := fmt.Sprintf("kt.a-%d", test.fate)
			ctx, cancel := context.WithCancel(t.Context())
			met := 0
			relay.Decide(func(first []byte) faults.Fate {
				if !bytes.Contains(first, []byte(stream)) {
					return faults.Pass
				}
				if met++; met > 1 {
					cancel() // The caller gives up as soon as it repeats itself.
					return faults.Fail
				}
				return test.fate
			})
			if test.fate == faults.Hang || test.fate == faults.HangStored {
				var stop context.CancelFunc
				ctx, stop = context.WithTimeout(ctx, 200*time.Millisecond)
				defer stop()
			}
			event := eventlog.Proposed{ID: domain.DeriveID("test", stream), Type: "test.v1", Data: []byte("{}")}
			_, err := log.Append(ctx, stream, eventlog.NoStream(), event)
			if (err == nil) != (test.fate == faults.Pass) {
				t.Errorf("append: %v", err)
			}
			cancel()
			relay.Release()
			relay.Decide(func([]byte) faults.Fate { return faults.Pass })
			got, err := log.ReadStream(t.Context(), stream, 0, 10)
			if err != nil || len(got) != test.stored {
				t.Errorf("%d events are stored (%v), want %d", len(got), err, test.stored)
			}
			// The repeat is one success, whatever was stored.
			if _, err := log.Append(t.Context(), stream, eventlog.NoStream(), event); err != nil {
				t.Errorf("repeat: %v", err)
			}
			if got, err := log.ReadStream(t.Context(), stream, 0, 10); err != nil || len(got) != 1 {
				t.Errorf("after the repeat %d events are stored (%v), want 1", len(got), err)
			}
		})
	}
}
