package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

func TestAFaultWhoseTextMovedIsRefused(t *testing.T) {
	b := &bench{scratch: t.TempDir(), sources: map[string]string{"/src/a.go": "one two two three", "/src/b.go": "three four"}}
	for _, test := range []struct {
		name  string
		edits []edit
		want  string // What the error says; none: it fits.
	}{
		{"gone", []edit{{"five", "x"}}, "0 files"},
		{"twice in a file", []edit{{"two", "x"}}, "2 times"},
		{"in two files", []edit{{"three", "x"}}, "2 files"},
		{"once", []edit{{"one", "x"}, {"four", "y"}, {"x two", "z"}}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			path, err := b.overlay(mutant{name: test.name, edits: test.edits})
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want %q", err, test.want)
			}
			if err != nil {
				return
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var overlay struct{ Replace map[string]string }
			if err := json.Unmarshal(data, &overlay); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(overlay.Replace["/src/a.go"])
			if err != nil || string(got) != "z two three" {
				t.Errorf("a.go became %q, %v", got, err)
			}
		})
	}
}

func TestTheInnermostFailureIsNamed(t *testing.T) {
	for _, test := range []struct{ name, out, want string }{
		{"a subtest", "--- FAIL: TestA (0.1s)\n    --- FAIL: TestA/in_words (0.0s)\n        --- FAIL: TestA/in_words/deep (0.0s)\n    x.go:1: no\n", "in words/deep"},
		{"a test", "--- FAIL: TestA (0.1s)\n    x.go:1: no\n", "TestA"},
		{"a panic", "panic: out of range\n\ngoroutine 1\n", "panic: out of range"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := firstFailure(test.out); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestEveryFaultHasANameOfItsOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range append(streamFaults(), serverFaults()...) {
		if seen[m.name] {
			t.Errorf("%q is there twice", m.name)
		}
		seen[m.name] = true
		for _, e := range m.edits {
			if e.old == e.new {
				t.Errorf("%q changes nothing", m.name)
			}
		}
	}
}
