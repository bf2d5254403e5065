package eventlog_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/internal/embedded/eventstore"
	"example.com/keytrail/internal/eventlog"
)

// behind connects through a proxy.
func behind(t *testing.T, p *proxy, cfg eventlog.Config) *eventlog.Log {
	t.Helper()
	cfg.Socket, cfg.Logger = p.l.Addr().String(), testLogger(t)
	l, err := eventlog.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func stored(t *testing.T, l *eventlog.Log, stream string) int {
	t.Helper()
	got, err := l.ReadStream(t.Context(), stream, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return len(got)
}

// The answer of an append is lost after it was stored: the log's own repeat finds
// it, and nothing is stored twice.
func TestAppendThatTimedOutButPersistedIsOneSuccess(t *testing.T) {
	s := startServer(t, eventstore.Config{})
	direct := openLog(t, s)
	p := startProxy(t, s.Address())
	l := behind(t, p, eventlog.Config{})
	for i := range 5 {
		stream := fmt.Sprintf("kt.a-%d", i)
		sub, err := direct.Subscribe(t.Context(), eventlog.SubscribeOptions{Prefixes: []string{stream}, FromStart: true})
		if err != nil {
			t.Fatal(err)
		}
		p.set(true, false)
		go func() { // As soon as it is stored, the connection dies with the answer.
			for {
				d, err := sub.Next(t.Context())
				if err != nil {
					return
				}
				if d.Event != nil {
					p.set(false, false)
					p.cut()
					return
				}
			}
		}()
		at, err := l.Append(t.Context(), stream, eventlog.NoStream(), benchEvents(uint64(10*i+1), 3)...)
		if err != nil || at.Revision != 2 {
			t.Fatalf("append: %+v, %v", at, err)
		}
		sub.Close()
		if got := stored(t, direct, stream); got != 3 {
			t.Fatalf("%d events are stored, want 3", got)
		}
	}
}

// The answer never comes: the caller is told that the outcome is unknown, within
// its timeout, and its own repeat is the same success.
func TestAppendWithoutAnswerIsOfUnknownOutcome(t *testing.T) {
	s := startServer(t, eventstore.Config{})
	p := startProxy(t, s.Address())
	l := behind(t, p, eventlog.Config{AppendTimeout: 300 * time.Millisecond})
	events := benchEvents(1, 2)
	if _, err := l.Append(t.Context(), "kt.a", eventlog.NoStream(), events...); err != nil {
		t.Fatal(err)
	}
	p.set(true, false)
	_, err := l.Append(t.Context(), "kt.a", eventlog.Exactly(1), benchEvents(11, 2)...)
	if !errors.Is(err, eventlog.ErrOutcomeUnknown) || !errors.Is(err, eventlog.ErrUnavailable) {
		t.Fatalf("append: got %v, want %v", err, eventlog.ErrOutcomeUnknown)
	}
	p.set(false, false)
	p.cut()
	if at, err := l.Append(t.Context(), "kt.a", eventlog.Exactly(1), benchEvents(11, 2)...); err != nil || at.Revision != 3 {
		t.Fatalf("repeat: %+v, %v", at, err)
	}
	if got := stored(t, l, "kt.a"); got != 4 {
		t.Errorf("%d events are stored, want 4", got)
	}
}

// While nobody answers, every caller gets its error within its own timeout, and
// all goes on once the server is back. goleak sees to it that no call stays behind.
func TestOutageHangsNobodyAndEndsByItself(t *testing.T) {
	s := startServer(t, eventstore.Config{})
	p := startProxy(t, s.Address())
	l := behind(t, p, eventlog.Config{AppendTimeout: 200 * time.Millisecond, ReadTimeout: 200 * time.Millisecond})
	sub, err := l.Subscribe(t.Context(), eventlog.SubscribeOptions{Prefixes: []string{"kt.a-"}, FromStart: true})
	if err != nil {
		t.Fatal(err)
	}
	const rounds, callers = 5, 16
	for round := range rounds {
		p.set(false, true)
		p.cut()
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				var err error
				if i%2 == 0 {
					_, err = l.Append(ctx, "kt.b", eventlog.NoStream(), benchEvents(1, 1)...)
				} else {
					_, err = l.ReadStream(ctx, "kt.b", 0, 1)
				}
				if !errors.Is(err, eventlog.ErrUnavailable) || ctx.Err() != nil {
					t.Errorf("call during the outage: got %v, %v, want %v", err, ctx.Err(), eventlog.ErrUnavailable)
				}
			})
		}
		wg.Wait()
		p.set(false, false)
		// The repeat is what a caller does with this error; here it goes on until it works.
		for {
			_, err := l.Append(t.Context(), fmt.Sprintf("kt.a-%d", round), eventlog.NoStream(), benchEvents(uint64(100+round), 1)...)
			if err == nil {
				break
			}
			if !errors.Is(err, eventlog.ErrUnavailable) {
				t.Fatalf("append after the outage: %v", err)
			}
		}
	}
	for got := 0; got < rounds; {
		d, err := sub.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if d.Event != nil {
			if want := benchID(uint64(100 + got)); d.Event.ID != want {
				t.Fatalf("event %d is %s, want %s", got, d.Event.ID, want)
			}
			got++
		}
	}
}

func TestOpenOfNobodySaysSo(t *testing.T) {
	_, err := eventlog.Open(t.Context(), eventlog.Config{Socket: socketPath(t), ReadTimeout: 100 * time.Millisecond, Logger: testLogger(t)})
	if !errors.Is(err, eventlog.ErrUnavailable) {
		t.Errorf("got %v, want %v", err, eventlog.ErrUnavailable)
	}
}

func TestClosedLogRefusesEverything(t *testing.T) {
	l := openLog(t, startServer(t, eventstore.Config{}))
	sub, err := l.Subscribe(t.Context(), eventlog.SubscribeOptions{Prefixes: []string{"kt."}, FromStart: true})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, appendErr := l.Append(t.Context(), "kt.a", eventlog.NoStream(), benchEvents(1, 1)...)
	_, readErr := l.ReadStream(t.Context(), "kt.a", 0, 1)
	_, subErr := l.Subscribe(t.Context(), eventlog.SubscribeOptions{Prefixes: []string{"kt."}})
	var nextErr error
	for nextErr == nil { // What was delivered before may still come.
		_, nextErr = sub.Next(t.Context())
	}
	for what, err := range map[string]error{"append": appendErr, "read": readErr, "subscribe": subErr, "next": nextErr} {
		if !errors.Is(err, eventlog.ErrClosed) {
			t.Errorf("%s: got %v, want %v", what, err, eventlog.ErrClosed)
		}
	}
	sub.Close()
}

func TestConfigIsRefusedWithAllReasonsAndWithoutSecrets(t *testing.T) {
	for _, test := range []struct {
		name string
		cfg  eventlog.Config
		want []string
	}{
		{"nothing", eventlog.Config{}, []string{"connection string or a socket", "logger"}},
		{"negative times", eventlog.Config{Socket: "s", AppendTimeout: -1, ReadTimeout: -1, MaxAppendBytes: -1}, []string{"append timeout", "read timeout", "append limit"}},
		{"wrong scheme", eventlog.Config{Connection: "http://user:geheim@host"}, []string{"connection string", "scheme"}},
		{"not a URL", eventlog.Config{Connection: "esdb://user:geheim@ho st:x"}, []string{"connection string"}},
		{"no host", eventlog.Config{Connection: "esdb://"}, []string{"connection string", "host"}},
		{"bad port", eventlog.Config{Connection: "esdb://user:geheim@host:nix"}, []string{"connection string"}},
		{"half a certificate", eventlog.Config{Connection: "esdb://host?userCertFile=a"}, []string{"connection string", "userKeyFile"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := eventlog.Open(t.Context(), test.cfg)
			if err == nil {
				t.Fatal("it was taken")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v does not say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "geheim") {
				t.Errorf("the error holds the password: %v", err)
			}
		})
	}
}

func TestMalformedAppendsAreRefusedBeforeTheyAreSent(t *testing.T) {
	l := openLog(t, startServer(t, eventstore.Config{}))
	ok := benchEvents(1, 1)[0]
	noID, noType := ok, ok
	noID.ID = [16]byte{}
	noType.Type = ""
	for _, test := range []struct {
		name, stream string
		events       []eventlog.Proposed
	}{
		{"no stream", "", []eventlog.Proposed{ok}},
		{"$all", "$all", []eventlog.Proposed{ok}},
		{"no events", "kt.a", nil},
		{"no id", "kt.a", []eventlog.Proposed{ok, noID}},
		{"no type", "kt.a", []eventlog.Proposed{noType}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := l.Append(t.Context(), test.stream, eventlog.NoStream(), test.events...); err == nil {
				t.Error("it was taken")
			}
		})
	}
	if got := stored(t, l, "kt.a"); got != 0 {
		t.Errorf("%d events are stored", got)
	}
}

func TestExpectedNamesWhatItExpects(t *testing.T) {
	type row struct {
		Text   string
		Next   uint64
		Rev    uint64
		Exists bool
	}
	of := func(e eventlog.Expected) row {
		rev, ok := e.Revision()
		return row{e.String(), e.Next(), rev, ok}
	}
	if d := cmp.Diff([]row{{"none", 0, 0, false}, {"0", 1, 0, true}, {"41", 42, 41, true}},
		[]row{of(eventlog.NoStream()), of(eventlog.Exactly(0)), of(eventlog.Exactly(41))}); d != "" {
		t.Error(d)
	}
}
