package eventstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"example.com/keytrail/internal/embedded/eventstore"
)

// faultyMachine is a server with faults under it, and what its clients were told.
type faultyMachine struct {
	t      *testing.T
	dir    string
	disk   *disk
	server *eventstore.Server
	client client
	stop   func()

	ids     uint64
	acked   map[uint64]bool
	refused map[uint64]bool
}

func (m *faultyMachine) open() {
	m.disk = &disk{}
	cfg := eventstore.Config{Dir: m.dir, Files: m.disk}
	lazy(&cfg) // No fold but those of the history: an image is taken between two steps.
	m.server, m.stop = open(m.t, cfg)
	m.client = dial(m.t, m.server)
}

func (m *faultyMachine) append(t *rapid.T) {
	m.ids++
	id := number(int(m.ids))
	stream := fmt.Sprintf("kt.%d", rapid.IntRange(0, 3).Draw(t, "stream"))
	a, err := m.client.append(m.t.Context(), stream, anyRevision, "t", make([]byte, rapid.IntRange(0, 9000).Draw(t, "bytes")), id)
	switch {
	case err == nil && a.ok:
		m.acked[id] = true
	case status.Code(err) == codes.Aborted:
		m.refused[id] = true
	case status.Code(err) == codes.Unknown: // Either is right.
	default:
		t.Fatalf("append: %+v, %v", a, err)
	}
}

// fault lets the journal, the tables or both fail until they are healed.
func (m *faultyMachine) fault(t *rapid.T) {
	kind := rapid.IntRange(0, 5).Draw(t, "fault")
	m.disk.set(func(d *disk) {
		switch kind {
		case 0:
			d.write = func([]byte) (int, error) { return 0, syscall.EIO }
		case 1:
			d.write = func(p []byte) (int, error) { return len(p) / 3, syscall.ENOSPC }
		case 2:
			d.sync = func(persisted bool) error { return failing(!persisted) }
		case 3:
			d.sync = failing
		case 4:
			d.make = func() error { return syscall.ENOSPC }
		}
	})
	switch rapid.IntRange(0, 2).Draw(t, "tables") {
	case 0:
		m.server.FailFolds(func(context.Context, *sql.Conn) error { return errInjected }, nil)
	case 1:
		m.server.FailFolds(nil, func() error { return errInjected })
	}
}

func (m *faultyMachine) heal() {
	m.disk.heal()
	m.server.FailFolds(nil, nil)
}

// kill goes on with what a kill at this moment would leave.
func (m *faultyMachine) kill() {
	left := image(m.t, m.dir)
	m.heal()
	m.stop()
	m.dir = left
	m.open()
}

func (m *faultyMachine) check(t *rapid.T) {
	events, err := m.client.readAll(m.t.Context(), false, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	times := map[uint64]int{}
	for _, e := range events {
		if times[e.ID]++; times[e.ID] > 1 || m.refused[e.ID] {
			t.Fatalf("event %d is there %d times, refused: %t", e.ID>>16, times[e.ID], m.refused[e.ID])
		}
	}
	for id := range m.acked {
		if times[id] != 1 {
			t.Fatalf("event %d was acknowledged and is there %d times", id>>16, times[id])
		}
	}
}

// Whatever fails, in whatever order, across kills: what was acknowledged is there once,
// what was refused as not stored never is.
func TestAcknowledgedIsThereOnceWhateverFails(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &faultyMachine{t: t, dir: t.TempDir(), acked: map[uint64]bool{}, refused: map[uint64]bool{}}
		m.open()
		defer func() {
			m.heal()
			m.stop()
			verify(t, m.dir, -1)
		}()
		rt.Repeat(map[string]func(*rapid.T){
			"append":      m.append,
			"append more": m.append,
			"fault":       m.fault,
			"heal":        func(*rapid.T) { m.heal() },
			"fold":        func(*rapid.T) { _ = m.server.Fold(m.t.Context()) },
			"kill": func(t *rapid.T) {
				if rapid.IntRange(0, 3).Draw(t, "rarely") == 0 {
					m.kill()
				}
			},
			"": m.check,
		})
	})
}
