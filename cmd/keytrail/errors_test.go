package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fails runs a command line that must fail and returns what it printed for people.
func fails(t *testing.T, args ...string) string {
	t.Helper()
	var out, errOut bytes.Buffer
	if code := run(t.Context(), args, &out, &errOut); code != 1 {
		t.Fatalf("keytrail %s: exit code %d, want 1\n%s%s", strings.Join(args, " "), code, &out, &errOut)
	}
	return errOut.String()
}

func TestAWrongSettingIsOneErrorThatSaysWhatToDo(t *testing.T) {
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := taken.Close(); err != nil {
			t.Error(err)
		}
	})
	settings := filepath.Join(t.TempDir(), "keytrail.yaml")
	if err := os.WriteFile(settings, []byte("lisen: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	emptyKey := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(emptyKey, []byte("k\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	serve := func(args ...string) []string {
		return append([]string{"serve", "--data", t.TempDir(), "--listen", "127.0.0.1:0", "--log-level", "error"}, args...)
	}
	tests := []struct {
		name string
		args []string
		want []string
	}{
		{name: "address in use", args: serve("--listen", taken.Addr().String()), want: []string{taken.Addr().String(), "--listen"}},
		{name: "event store that is none", args: serve("--eventstore", "http://x"), want: []string{"esdb://", "--eventstore"}},
		{name: "ClickHouse that is none", args: serve("--clickhouse", "bogus"), want: []string{"clickhouse://", "--clickhouse"}},
		{name: "engine that is missing", args: serve("--engine-library", "/nowhere/libchdb.so"), want: []string{"/nowhere/libchdb.so", "--engine-library"}},
		{name: "misspelt setting", args: serve("--config", settings), want: []string{`"lisen"`, "keytrail.yaml"}},
		{name: "log level", args: serve("--log-level", "loud"), want: []string{"loud", "debug"}},
		{name: "data folder that cannot be made", args: serve("--data", filepath.Join(settings, "data")), want: []string{"--data"}},
		{name: "rules that are none", args: serve("--rules", "/nowhere/rules"), want: []string{"/nowhere/rules"}},
		{name: "no key", args: []string{"findings", "list", "--key-file", "/nowhere/admin.key"}, want: []string{"/nowhere/admin.key", "--key-file"}},
		{name: "no server", args: []string{"findings", "list", "--key-file", emptyKey, "--server", "http://127.0.0.1:1"}, want: []string{"127.0.0.1:1", "--server"}},
		{name: "output", args: []string{"findings", "list", "--key-file", emptyKey, "-o", "xml"}, want: []string{"xml", "json"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := fails(t, tt.args...)
			for _, w := range tt.want {
				if !strings.Contains(got, w) {
					t.Errorf("printed %q, want it to say %q", got, w)
				}
			}
		})
	}
}

func TestADataFolderInUseIsSaidSoAndByWhom(t *testing.T) {
	s := newSystem(t)
	got := fails(t, "serve", "--data", s.data, "--listen", "127.0.0.1:0", "--log-level", "error")
	for _, w := range []string{"in use by pid", s.data, "another folder"} {
		if !strings.Contains(got, w) {
			t.Errorf("printed %q, want it to say %q", got, w)
		}
	}
}

func TestEveryCommandTeaches(t *testing.T) {
	var out bytes.Buffer
	for _, args := range [][]string{{"--help"}, {"serve", "--help"}, {"import", "cloudtrail", "--help"}, {"keys", "--help"}, {"events", "--help"}, {"findings", "--help"}, {"verify", "projections", "--help"}, {"rebuild", "--help"}, {"poison", "--help"}, {"dev", "--help"}, {"dev", "eventstore", "--help"}, {"log", "--help"}, {"log", "cat", "--help"}, {"log", "check", "--help"}, {"log", "backup", "--help"}, {"log", "restore", "--help"}} {
		out.Reset()
		if code := run(t.Context(), args, &out, &out); code != 0 {
			t.Errorf("%v: exit code %d", args, code)
		}
		if !strings.Contains(out.String(), "keytrail ") || out.Len() < 300 {
			t.Errorf("%v prints only %q", args, &out)
		}
	}
}
