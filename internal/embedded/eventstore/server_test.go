package eventstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	api "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"example.com/keytrail/internal/embedded/eventstore"
)

func TestFolderIsHeldByOneServer(t *testing.T) {
	dir := t.TempDir()
	_, stop := open(t, eventstore.Config{Dir: dir})
	_, err := eventstore.Open(eventstore.Config{Dir: dir, Socket: filepath.Join(shortDir(t), "s"), Logger: testLogger(t)})
	if want := "data folder in use by pid " + strconv.Itoa(os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("a second server: got %v, want %q", err, want)
	}
	stop()
	open(t, eventstore.Config{Dir: dir})
}

func TestConfigIsRefusedWithAllReasons(t *testing.T) {
	long := "/" + strings.Repeat("x", 100)
	for _, test := range []struct {
		name string
		cfg  eventstore.Config
		want []string
	}{
		{"nothing", eventstore.Config{}, []string{"data folder", "socket or a listen address", "logger"}},
		{"long socket path", eventstore.Config{Dir: "d", Socket: long, Logger: testLogger(t)}, []string{"101 bytes", "shorter runtime folder", long}},
		{"both addresses", eventstore.Config{Dir: "d", Socket: "s", Listen: "l", Logger: testLogger(t)}, []string{"exclude each other"}},
		{"a limit over the protocol's", eventstore.Config{Dir: "d", Socket: "s", MaxAppendBytes: 1 << 30, Logger: testLogger(t)}, []string{"append limit"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := eventstore.Open(test.cfg)
			for _, want := range test.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want it to say %q", err, want)
				}
			}
		})
	}
}

// edit changes the file of a closed server.
func edit(query string) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		db, err := sql.Open("sqlite", filepath.Join(dir, "events.db"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(t.Context(), query); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDamagedFileIsRefusedAtOpen(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, dir string){
		"newer schema": edit(`PRAGMA user_version = 99`),
		"newest block": edit(`UPDATE blocks SET body = zeroblob(length(body))`),
		"one byte of the newest block": edit(`UPDATE blocks SET body = CAST(substr(body, 1, length(body) - 1) || x'00' AS BLOB)
			WHERE first_pos = (SELECT max(first_pos) FROM blocks)`),
		"missing index":   edit(`DROP TABLE runs`),
		"another name":    edit(`UPDATE streams SET name = 'kt.zz' WHERE sid = 1`),
		"a limit":         edit(`UPDATE streams SET max_count = 1 WHERE sid = 1`),
		"another start":   edit(`UPDATE streams SET cut_below = 1 WHERE sid = 1`),
		"missing run":     edit(`DELETE FROM runs WHERE sid = 1`),
		"overwritten":     overwrite(0, 4096),
		"torn in between": overwrite(4096, 4096),
		"cut short":       cutShort,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			fill(t, dir)
			damage(t, dir)
			cfg := eventstore.Config{Dir: dir, Socket: filepath.Join(shortDir(t), "s"), Logger: testLogger(t)}
			s, err := eventstore.Open(cfg)
			if err == nil {
				if err := s.Close(t.Context()); err != nil {
					t.Error(err)
				}
				t.Fatal("a damaged file was opened")
			}
			t.Log(err)
			if _, err := os.Stat(cfg.Socket); err == nil {
				t.Error("the refused server left a socket")
			}
		})
	}
}

func fill(t *testing.T, dir string) {
	t.Helper()
	s, stop := open(t, eventstore.Config{Dir: dir})
	c := dial(t, s)
	for i := range 200 {
		if a, err := c.append(t.Context(), fmt.Sprintf("kt.a-%d", i), noStream, "t", make([]byte, 400), number(i)); err != nil || !a.ok {
			t.Fatalf("append: %+v, %v", a, err)
		}
	}
	stop()
}

func overwrite(at int64, n int) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(dir, "events.db"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		junk := make([]byte, n)
		for i := range junk {
			junk[i] = 0xa5
		}
		if _, err := f.WriteAt(junk, at); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func cutShort(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, "events.db")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()/2); err != nil {
		t.Fatal(err)
	}
}

func TestSocketOfADeadProcessIsTakenOver(t *testing.T) {
	socket := filepath.Join(shortDir(t), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s, _ := open(t, eventstore.Config{Socket: socket})
	info, err := os.Stat(s.Address())
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %s", info.Mode())
	}
	other := filepath.Join(shortDir(t), "file")
	if err := os.WriteFile(other, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := eventstore.Open(eventstore.Config{Dir: t.TempDir(), Socket: other, Logger: testLogger(t)}); err == nil {
		t.Error("a file that is no socket was taken over")
	}
}

func TestOtherServicesAreRefusedWithASentence(t *testing.T) {
	s, _ := open(t, eventstore.Config{})
	conn, err := grpc.NewClient("unix://"+s.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, method := range []string{
		"/event_store.client.persistent_subscriptions.PersistentSubscriptions/Create",
		"/event_store.client.projections.Projections/Create",
		"/event_store.client.users.Users/Create",
	} {
		err := conn.Invoke(t.Context(), method, &shared.Empty{}, &shared.Empty{})
		if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "use EventStoreDB") {
			t.Errorf("%s: got %v", method, err)
		}
	}
}

// clock is a settable time.
type clock struct {
	mu  sync.Mutex // Guards now.
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = t
}

func TestCreatedNeverGoesBackAndMaxAgeHides(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ck := &clock{now: start}
	dir := t.TempDir()
	s, stop := open(t, eventstore.Config{Dir: dir, Clock: ck.Now})
	c := dial(t, s)
	appendAt := func(expect int64, at time.Time) {
		t.Helper()
		ck.set(at)
		if a, err := c.append(t.Context(), "kt.a", expect, "t", nil, number(int(expect)+2)); err != nil || !a.ok {
			t.Fatalf("append: %+v, %v", a, err)
		}
	}
	appendAt(noStream, start)
	appendAt(0, start.Add(-time.Hour))
	stop()
	verify(t, dir, 2) // It checks that times do not go back.

	s, _ = open(t, eventstore.Config{Dir: dir, Clock: ck.Now})
	c = dial(t, s)
	appendAt(1, start.Add(-time.Minute))
	verify(t, dir, 3)
	appendAt(2, start.Add(time.Minute))
	if a, err := c.append(t.Context(), "$$kt.a", anyRevision, "$metadata", []byte(`{"$maxAge":30}`), number(99)); err != nil || !a.ok {
		t.Fatalf("set age: %+v, %v", a, err)
	}
	for _, test := range []struct {
		name string
		now  time.Time
		want int
	}{
		{"young", start.Add(10 * time.Second), 4},
		{"old but one", start.Add(time.Minute), 1},
		{"all old", start.Add(time.Hour), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			ck.set(test.now)
			events, _, err := c.readStream(t.Context(), "kt.a", false, nil, 10)
			if err != nil || len(events) != test.want {
				t.Errorf("got %d events, %v, want %d", len(events), err, test.want)
			}
		})
	}
}

// Many writers on few streams: every success stands exactly where it was said.
func TestConcurrentWritersAreSerialised(t *testing.T) {
	dir := t.TempDir()
	s, stop := open(t, eventstore.Config{Dir: dir})
	c := dial(t, s)
	const writers, appends, streams = 16, 25, 3
	var mu sync.Mutex
	won := map[string]uint64{} // Place to id.
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			stream := fmt.Sprintf("kt.s-%d", w%streams)
			next := int64(noStream)
			for i := 0; i < appends; {
				id := number(w*appends + i + 1)
				a, err := c.append(t.Context(), stream, next, "t", nil, id)
				if err != nil {
					t.Errorf("append: %v", err)
					return
				}
				if a.wrong { // Somebody else was first: look again.
					last, _, err := c.readStream(t.Context(), stream, true, nil, 1)
					if err != nil || len(last) != 1 {
						t.Errorf("read: %v, %v", last, err)
						return
					}
					next = int64(last[0].Rev)
					continue
				}
				mu.Lock()
				won[fmt.Sprintf("%s@%d", stream, a.rev)] = id
				mu.Unlock()
				next, i = int64(a.rev), i+1
			}
		})
	}
	wg.Wait()
	all, err := c.readAll(t.Context(), false, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != writers*appends || len(won) != len(all) {
		t.Errorf("%d events, %d places, want %d", len(all), len(won), writers*appends)
	}
	for _, e := range all {
		if id := won[fmt.Sprintf("%s@%d", e.Stream, e.Rev)]; id != e.ID {
			t.Errorf("%s@%d is %d, its writer was told %d", e.Stream, e.Rev, e.ID, id)
		}
	}
	stop()
	verify(t, dir, writers*appends)
}

// Positions have gaps, so that nobody can rely on +1.
func TestPositionsHaveGaps(t *testing.T) {
	s, _ := open(t, eventstore.Config{})
	c := dial(t, s)
	if _, err := c.append(t.Context(), "kt.a", noStream, "t", nil, number(1), number(2), number(3)); err != nil {
		t.Fatal(err)
	}
	events, err := c.readAll(t.Context(), false, 10)
	if err != nil || len(events) != 3 {
		t.Fatalf("got %v, %v", events, err)
	}
	for i := 1; i < len(events); i++ {
		if events[i].Pos <= events[i-1].Pos+1 {
			t.Errorf("position %d follows %d", events[i].Pos, events[i-1].Pos)
		}
	}
}

// A subscriber that does not read costs the server no memory that grows, and
// everything is still there when it does.
func TestSlowSubscriberIsServedFromTheFile(t *testing.T) {
	s, _ := open(t, eventstore.Config{})
	c := dial(t, s)
	sub, err := c.Read(t.Context(), &api.ReadReq{Options: &api.ReadReq_Options{
		StreamOption: &api.ReadReq_Options_All{All: &api.ReadReq_Options_AllOptions{AllOption: &api.ReadReq_Options_AllOptions_Start{Start: &shared.Empty{}}}},
		CountOption:  &api.ReadReq_Options_Subscription{Subscription: &api.ReadReq_Options_SubscriptionOptions{}},
		FilterOption: &api.ReadReq_Options_NoFilter{NoFilter: &shared.Empty{}},
		UuidOption:   &api.ReadReq_Options_UUIDOption{Content: &api.ReadReq_Options_UUIDOption_Structured{Structured: &shared.Empty{}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	const appends, perAppend, dataBytes = 60, 8, 64 << 10
	data := make([]byte, dataBytes)
	for i := range appends {
		ids := make([]uint64, perAppend)
		for j := range ids {
			ids[j] = number(i*perAppend + j)
		}
		if a, err := c.append(t.Context(), fmt.Sprintf("kt.s-%d", i), noStream, "t", data, ids...); err != nil || !a.ok {
			t.Fatalf("append: %+v, %v", a, err)
		}
	}
	for memory := int64(1); memory > 0; memory, _ = s.Unfolded() {
		if err := s.Fold(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.RecentBytes(); got > eventstore.RecentBytesMax {
		t.Errorf("%d bytes of blocks are in memory, at most %d", got, eventstore.RecentBytesMax)
	}
	for want := 0; want < appends*perAppend; {
		m, err := sub.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if e := m.GetEvent(); e != nil {
			if got := numberOf(e.GetEvent().GetId()); got != number(want) {
				t.Fatalf("event %d is %d", want, got>>16)
			}
			want++
		}
	}
}

func TestHeadsInMemoryAreBounded(t *testing.T) {
	s, stop := open(t, eventstore.Config{})
	const bound, streams = 20, 100
	s.BoundHeads(bound)
	c := dial(t, s)
	for round := range 2 { // In the second, the heads come from the file.
		for i := range streams {
			a, err := c.append(t.Context(), fmt.Sprintf("kt.s-%d", i), int64(round-1), "t", nil, number(round+1))
			if err != nil || !a.ok || a.rev != uint64(round) {
				t.Fatalf("append: %+v, %v", a, err)
			}
		}
	}
	stop()
	if got := s.Heads(); got > bound {
		t.Errorf("%d heads are in memory, at most %d", got, bound)
	}
}

// Close ends subscriptions, lets appends in flight end well, and can be repeated.
func TestCloseEndsSubscriptionsAndKeepsAppends(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, eventstore.Config{Dir: dir})
	c := dial(t, s)
	sub, err := c.Read(t.Context(), &api.ReadReq{Options: &api.ReadReq_Options{
		StreamOption: &api.ReadReq_Options_All{All: &api.ReadReq_Options_AllOptions{AllOption: &api.ReadReq_Options_AllOptions_Start{Start: &shared.Empty{}}}},
		CountOption:  &api.ReadReq_Options_Subscription{Subscription: &api.ReadReq_Options_SubscriptionOptions{}},
		UuidOption:   &api.ReadReq_Options_UUIDOption{Content: &api.ReadReq_Options_UUIDOption_Structured{Structured: &shared.Empty{}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := sub.Recv(); err != nil || m.GetConfirmation() == nil {
		t.Fatalf("got %v, %v, want a confirmation", m, err)
	}
	stored := make(chan int, 1)
	begun := make(chan struct{})
	go func() {
		n := 0
		for ; ; n++ {
			if _, err := c.append(t.Context(), "kt.a", int64(n-1), "t", nil, number(n)); err != nil {
				break
			}
			if n == 10 {
				close(begun)
			}
		}
		stored <- n
	}()
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for range 2 {
		if err := s.Close(ctx); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
	for {
		if _, err := sub.Recv(); err != nil {
			if status.Code(err) != codes.Unavailable {
				t.Errorf("the subscription ended with %v", err)
			}
			break
		}
	}
	n := <-stored
	r, err := eventstore.Verify(t.Context(), dir)
	if err != nil || r.Events < n || r.Events > n+1 {
		t.Errorf("the log holds %d events, %v; %d were acknowledged", r.Events, err, n)
	}
}

func TestMalformedRequestsAreRefused(t *testing.T) {
	s, _ := open(t, eventstore.Config{})
	c := dial(t, s)
	for _, test := range []struct{ name, stream, typ string }{
		{"no stream", "", "t"},
		{"$all as a stream", "$all", "t"},
		{"a long stream name", strings.Repeat("x", 5000), "t"},
		{"a long type", "kt.a", strings.Repeat("x", 5000)},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := c.append(t.Context(), test.stream, anyRevision, test.typ, nil, number(1)); status.Code(err) != codes.InvalidArgument {
				t.Errorf("got %v", err)
			}
		})
	}
	_, _, err := c.read(t.Context(), &api.ReadReq_Options{
		StreamOption: &api.ReadReq_Options_All{All: &api.ReadReq_Options_AllOptions{}},
		CountOption:  &api.ReadReq_Options_Subscription{Subscription: &api.ReadReq_Options_SubscriptionOptions{}},
		FilterOption: &api.ReadReq_Options_Filter{Filter: &api.ReadReq_Options_FilterOptions{
			Filter:                       &api.ReadReq_Options_FilterOptions_StreamIdentifier{StreamIdentifier: &api.ReadReq_Options_FilterOptions_Expression{Regex: "("}},
			CheckpointIntervalMultiplier: 1,
		}},
	})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("a filter that does not compile: got %v", err)
	}
	if _, err := c.readAll(t.Context(), false, 1); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("read after malformed requests: %v", err)
	}
}
