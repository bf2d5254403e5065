package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/embedded/eventstore"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/usagebatch"
)

// keyLike is what the value of a key looks like.
const keyLike = "kt_0123456789abcdefghijABCDEFGHIJ"

// served is an event log that is served and holds three events: JSON that has something
// like a key's value in it, two uses, one of which has it too, and bytes.
type served struct {
	data, address string
	stop          func()
}

func serveLog(t *testing.T) served {
	t.Helper()
	v := served{data: t.TempDir()}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	srv, err := eventstore.Open(eventstore.Config{Dir: logFolder(v.data), Listen: "127.0.0.1:0", Insecure: true, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	v.stop = func() {
		if stopped {
			return
		}
		stopped = true
		ctx, cancel := context.WithTimeout(context.Background(), closeMax)
		defer cancel()
		if err := srv.Close(ctx); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(v.stop)
	v.address = "esdb://" + srv.Address() + "?tls=false"
	l, err := eventlog.Open(t.Context(), eventlog.Config{Connection: v.address, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	columns, err := usagebatch.Encode([]domain.Use{
		{ID: "u1", Time: at, Account: "a1", KeyID: "ApiKey-1", Action: "s.o.read", Access: domain.AccessRead, Outcome: domain.OutcomeSuccess, Source: "192.0.2.1", UserAgent: keyLike},
		{ID: "u2", Time: at.Add(time.Second), Account: "a1", KeyID: "ApiKey-1", Action: "s.o.write", Access: domain.AccessWrite, Outcome: domain.OutcomeFailure, ErrorCode: "Denied"},
	})
	if err != nil {
		t.Fatal(err)
	}
	data, isJSON, err := domain.EncodeEvent(domain.UsageRecorded{Batch: domain.UsageBatch{Batch: "b1", Caller: "c1", Lines: 2, Count: 2, Last: true, From: at, To: at.Add(time.Second), Columns: columns}})
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range []eventlog.Proposed{
		{Type: "kt.note.v1", JSON: true, Data: []byte(`{"text":"` + keyLike + `"}`), Meta: []byte(`{"who":"` + keyLike + `"}`)},
		{Type: domain.TypeUsageRecorded, JSON: isJSON, Data: data, Meta: []byte(`{}`)},
		{Type: "kt.bytes.v1", Data: []byte{0, 1, 2}},
	} {
		e.ID = domain.EventID{byte(i + 1), 6: 0x40, 8: 0x80}
		if _, err := l.Append(t.Context(), fmt.Sprintf("kt.s-%d", i), eventlog.NoStream(), e); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

// says runs a command line that must end with code, and returns what it printed.
func says(t *testing.T, code int, args ...string) string {
	t.Helper()
	var out, errOut bytes.Buffer
	if got := run(t.Context(), args, &out, &errOut); got != code {
		t.Fatalf("keytrail %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, &out, &errOut)
	}
	return out.String()
}

func TestLogCatShowsWhatTheLogSays(t *testing.T) {
	v := serveLog(t)
	for _, source := range []struct {
		name string
		args []string
	}{
		{"the folder of a running server", []string{"--data", v.data}},
		{"a server", []string{"--eventstore", v.address}},
	} {
		for _, test := range []struct {
			name string
			args []string
			want []string // In this order, one a line.
		}{
			{"all, as text", []string{"--all"}, []string{`kt.s-0@0  kt.note.v1  {"text":"kt_****`, `kt.s-1@0  usage.recorded.v1  {"batch":"b1"`, `kt.s-2@0  kt.bytes.v1  {"bytes":3,"sha256":"ae4b3280e56e2faf`}},
			{"all, as JSON", []string{"--all", "-o", "json"}, []string{`"type":"kt.note.v1"`, `"count":2`, `"data_bytes":3`}},
			{"one stream", []string{"kt.s-2"}, []string{"kt.s-2@0"}},
			{"a stream that is not there", []string{"kt.none"}, nil},
			{"past the end of a stream", []string{"kt.s-2", "--from", "1"}, nil},
			{"the first", []string{"--all", "--limit", "1"}, []string{"kt.s-0@0"}},
			{"uses", []string{"kt.s-1", "--uses"}, []string{`"id":"u1"`, `"error_code":"Denied"`}},
			{"uses, as JSON", []string{"kt.s-1", "--uses", "-o", "json"}, []string{`"index":0,"use":{"id":"u1","time":"2026-11-23T10:00:00Z","account_id":"a1"`, `"index":1,"use":{"id":"u2"`}},
		} {
			t.Run(source.name+", "+test.name, func(t *testing.T) {
				out := says(t, 0, slices.Concat([]string{"log", "cat"}, test.args, source.args)...)
				if strings.Contains(out, keyLike) {
					t.Errorf("the output holds what looks like a key's value:\n%s", out)
				}
				lines := strings.FieldsFunc(out, func(r rune) bool { return r == '\n' })
				if len(lines) != len(test.want) {
					t.Fatalf("%d lines, want %d:\n%s", len(lines), len(test.want), out)
				}
				for i, want := range test.want {
					if !strings.Contains(lines[i], want) {
						t.Errorf("line %d is %q, want it to hold %q", i, lines[i], want)
					}
				}
			})
		}
	}
	var first struct{ Position uint64 }
	if err := json.Unmarshal([]byte(says(t, 0, "log", "cat", "--all", "--data", v.data, "--limit", "1", "-o", "json")), &first); err != nil {
		t.Fatal(err)
	}
	for _, source := range [][]string{{"--data", v.data}, {"--eventstore", v.address}} {
		out := says(t, 0, append([]string{"log", "cat", "--all", "--from", fmt.Sprint(first.Position + 1)}, source...)...)
		if strings.Contains(out, "kt.s-0@") || !strings.Contains(out, "kt.s-1@") {
			t.Errorf("%v from the second position:\n%s", source, out)
		}
	}
}

// A stream that is longer than what one read asks for is shown to its end.
func TestLogCatShowsALongStreamWhole(t *testing.T) {
	v := serveLog(t)
	l, err := eventlog.Open(t.Context(), eventlog.Config{Connection: v.address, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	events := make([]eventlog.Proposed, 2*catPage+1)
	for i := range events {
		events[i] = eventlog.Proposed{ID: domain.DeriveID("long", fmt.Sprint(i)), Type: "kt.note.v1", JSON: true, Data: []byte(`{}`)}
	}
	_, err = l.Append(t.Context(), "kt.long", eventlog.NoStream(), events...)
	if err := errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	for _, source := range [][]string{{"--data", v.data}, {"--eventstore", v.address}} {
		for _, from := range []int{0, 1, catPage + 1} {
			out := says(t, 0, append([]string{"log", "cat", "kt.long", "--from", fmt.Sprint(from)}, source...)...)
			lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
			if len(lines) != len(events)-from {
				t.Errorf("%v from %d: %d lines, want %d", source, from, len(lines), len(events)-from)
			}
			for i, line := range lines {
				if want := fmt.Sprintf("  kt.long@%d  ", from+i); !strings.Contains(line, want) {
					t.Fatalf("%v from %d: line %d is %q, want%s", source, from, i, line, want)
				}
			}
		}
	}
}

func TestLogCheckFindsDamage(t *testing.T) {
	v := serveLog(t)
	if out := says(t, 0, "log", "check", "--data", v.data); !strings.Contains(out, "events    3") || !strings.Contains(out, "no damage") {
		t.Errorf("while it is served:\n%s", out)
	}
	v.stop()
	if out := says(t, 0, "log", "check", "--data", v.data, "-o", "json"); !strings.Contains(out, `"events":3,"streams":3`) {
		t.Errorf("after it was served:\n%s", out)
	}
	path := filepath.Join(logFolder(v.data), "events.db")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(data, []byte("kt.note.v1"))
	if i < 0 {
		t.Fatal("the file does not hold the event")
	}
	data[i] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := says(t, 2, "log", "check", "--data", v.data); !strings.Contains(out, "DAMAGED") || !strings.Contains(out, "keytrail log restore") {
		t.Errorf("one bit changed:\n%s", out)
	}
	if out := says(t, 2, "log", "check", "--data", v.data, "-o", "json"); !strings.Contains(out, `"damage":"`) {
		t.Errorf("one bit changed, as JSON:\n%s", out)
	}
}

func TestLogCommandsSayWhatToDo(t *testing.T) {
	v := serveLog(t)
	backup := filepath.Join(t.TempDir(), "backup")
	if out := says(t, 0, "log", "backup", backup, "--data", v.data); !strings.Contains(out, "backed up 3 events of 3 streams") {
		t.Errorf("backup says %q", out)
	}
	whole, err := os.ReadFile(backup)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut")
	if err := os.WriteFile(cut, whole[:len(whole)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		args []string
		want []string
	}{
		{"no folder", []string{"log", "check", "--data", "/nowhere"}, []string{"/nowhere", "--data"}},
		{"no stream", []string{"log", "cat", "--data", v.data}, []string{"--all"}},
		{"both", []string{"log", "cat", "--all", "kt.a", "--data", v.data}, []string{"--all"}},
		{"output", []string{"log", "cat", "--all", "-o", "xml"}, []string{"xml", "json"}},
		{"server that is none", []string{"log", "cat", "--all", "--eventstore", "http://x"}, []string{"--eventstore"}},
		{"a file that is there", []string{"log", "backup", backup, "--data", v.data}, []string{backup, "exists"}},
		{"nothing to back up", []string{"log", "backup", backup + "2", "--data", "/nowhere"}, []string{"/nowhere", "--data"}},
		{"no backup", []string{"log", "restore", "/nowhere/b", "--data", t.TempDir()}, []string{"/nowhere/b"}},
		{"no folder named", []string{"log", "restore", backup}, []string{"data"}},
		{"a log that is there", []string{"log", "restore", backup, "--data", v.data}, []string{"not empty", "new folder"}},
		{"a backup that was cut", []string{"log", "restore", cut, "--data", t.TempDir()}, []string{"ends too early"}},
		{"an address for all", []string{"dev", "eventstore", "--data", t.TempDir(), "--listen", "0.0.0.0:0", "--insecure"}, []string{"reached by others", "--tls-cert"}},
		{"an address unsaid", []string{"dev", "eventstore", "--data", t.TempDir(), "--listen", "127.0.0.1:0"}, []string{"without transport security", "--insecure"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := fails(t, test.args...)
			for _, want := range test.want {
				if !strings.Contains(got, want) {
					t.Errorf("printed %q, want it to say %q", got, want)
				}
			}
		})
	}
	left, err := os.ReadDir(filepath.Dir(backup))
	if err != nil || len(left) != 1 {
		t.Errorf("beside the backup are %v, %v", left, err)
	}
	restored := t.TempDir()
	if out := says(t, 0, "log", "restore", backup, "--data", restored); !strings.Contains(out, "restored 3 events of 3 streams") {
		t.Errorf("restore says %q", out)
	}
	if was, is := says(t, 0, "log", "cat", "--all", "--data", v.data), says(t, 0, "log", "cat", "--all", "--data", restored); was != is {
		t.Errorf("restored:\n%s\nwant:\n%s", is, was)
	}
}

// A backup that is made while a server takes writes holds a beginning of them that no
// acknowledged one is missing from, and a server on it goes on.
func TestABackupOfARunningServerRestores(t *testing.T) {
	s := newSystem(t)
	iam, account := s.me()
	s.manyKeys()
	name := func(i int) string { return fmt.Sprintf("backed-up-%04d", i) }
	var acknowledged atomic.Int64
	create := func() error {
		in := map[string]string{"name": name(int(acknowledged.Load())), "iam_id": iam}
		if err := s.post(http.MethodPost, "/v1/apikeys", in, nil); err != nil {
			return err
		}
		acknowledged.Add(1)
		return nil
	}
	for range 30 {
		if err := create(); err != nil {
			t.Fatal(err)
		}
	}
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if err := create(); err != nil {
				stopped <- err
				return
			}
		}
	}()
	backup, before := "", 0
	for i := range 5 {
		backup, before = filepath.Join(t.TempDir(), fmt.Sprint(i)), int(acknowledged.Load())
		says(t, 0, "log", "backup", backup, "--data", s.data)
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	r := &system{t: t, data: t.TempDir(), log: &syncBuffer{}}
	says(t, 0, "log", "restore", backup, "--data", r.data)
	for _, name := range []string{"keystore", "master.key", "admin.key"} {
		copyFile(t, filepath.Join(s.data, name), filepath.Join(r.data, name))
	}
	r.start()
	defer r.stop()
	var restored []string
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(startMax); len(restored) < before; { // The tables are made anew meanwhile.
		var err error
		if restored, err = r.keysCalled(account, "backed-up-"); err != nil && status(err) != http.StatusServiceUnavailable {
			t.Fatal(err)
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("%d keys are restored, %d were there when the backup began", len(restored), before)
		}
	}
	r.verified()
	slices.Sort(restored)
	var want []string
	for i := range restored {
		want = append(want, name(i))
	}
	if len(restored) < before || len(restored) > int(acknowledged.Load()) || !slices.Equal(restored, want) {
		t.Errorf("%d keys are restored, %d were there when the backup began, %d at the end; want a beginning of them", len(restored), before, acknowledged.Load())
	}
	if err := r.post(http.MethodPost, "/v1/apikeys", map[string]string{"name": "after", "iam_id": iam}, nil); err != nil {
		t.Errorf("the restored server takes no command: %v", err)
	}
	t.Logf("%d keys before, %d in the backup, %d in the end", before, len(restored), acknowledged.Load())
}

// keysCalled returns the names of an account's keys that begin with prefix.
func (s *system) keysCalled(account, prefix string) (names []string, err error) {
	s.t.Helper()
	for q := (url.Values{"pagesize": {"100"}, "account_id": {account}}); q != nil; {
		var list struct {
			Next    string `json:"next"`
			Apikeys []struct{ Name string }
		}
		req := httpRequest(http.MethodGet, "/v1/apikeys")
		req.Query = q
		if err := s.api.JSON(s.t.Context(), req, nil, &list); err != nil {
			return nil, err
		}
		for _, k := range list.Apikeys {
			if strings.HasPrefix(k.Name, prefix) {
				names = append(names, k.Name)
			}
		}
		q = nil
		if list.Next != "" {
			next, err := url.Parse(list.Next)
			if err != nil {
				return nil, err
			}
			q = next.Query()
		}
	}
	return names, nil
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
