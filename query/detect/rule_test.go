package detect_test

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"example.com/keytrail/internal/filter"
	"example.com/keytrail/query/detect"
)

// Every rule that comes with the program is read, compiled, and passes the tests in
// its file, one that fires and one that stays quiet among them.
func TestEveryBuiltinRulePassesItsOwnTests(t *testing.T) {
	files, err := fs.Glob(detect.Builtin(), "*.yaml")
	if err != nil || len(files) < 6 {
		t.Fatalf("got %d rule files and %v, want at least 6", len(files), err)
	}
	for _, name := range files {
		t.Run(name, func(t *testing.T) {
			data, err := fs.ReadFile(detect.Builtin(), name)
			if err != nil {
				t.Fatal(err)
			}
			r, err := detect.ParseRule(data, nil)
			if err != nil {
				t.Fatal(err)
			}
			if r.ID+".yaml" != name {
				t.Errorf("rule %s stands in %s", r.ID, name)
			}
			if err := r.Test(); err != nil {
				t.Error(err)
			}
		})
	}
}

// What a rule's filter may say, search understands too: both read one language.
func TestFiltersOfBuiltinRulesAreFiltersOfSearch(t *testing.T) {
	rules, err := detect.Load(detect.Builtin())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		for source, text := range detect.Filters(r) {
			if _, err := filter.Parse(text); err != nil {
				t.Errorf("rule %s, source %s: %v", r.ID, source, err)
			}
		}
	}
}

// plain is a small valid rule; tests change one thing in it.
const plain = `
id: plain
version: 1
title: Plain
severity: low
techniques: [T1078]
sources: {usage: 'action = "x"'}
group_by: key
shape: count
windows: [{threshold: "${n}", within: 1m}]
join: 2m
span: 1h
parameters: {n: {default: 2}}
reason: "{{.Count}} within {{.Within}}"
tests:
  - {name: fires, records: [{key: K, action: x, repeat: 2}], findings: 1}
  - {name: quiet, records: [{key: K, action: y, repeat: 2}], findings: 0}
`

func TestRuleFileIsRefused(t *testing.T) {
	tests := []struct {
		name, old, new, want string
	}{
		{name: "an unknown field", old: "group_by: key", new: "group_by: key\ncolour: red", want: "colour"},
		{name: "a field twice", old: "version: 1", new: "version: 1\nversion: 2", want: "version"},
		{name: "an id that is no word", old: "id: plain", new: "id: Plain Rule", want: "id:"},
		{name: "no version", old: "version: 1", new: "version: 0", want: "version:"},
		{name: "an unknown severity", old: "severity: low", new: "severity: awful", want: "severity:"},
		{name: "a technique that is none", old: "T1078", new: "TA0001", want: "techniques:"},
		{name: "an unknown source", old: "usage:", new: "telepathy:", want: "no such source"},
		{name: "an unknown field in a filter", old: `action = "x"`, new: `colour = "x"`, want: `no field "colour"`},
		{name: "a field that the source lacks", old: `action = "x"`, new: `key.status = "x"`, want: "has no field"},
		{name: "a filter that does not end", old: `action = "x"`, new: `action = "x" AND`, want: "before"},
		{name: "a filter without AND", old: `action = "x"`, new: `action = "x" action = "y"`, want: "not expected"},
		{name: "a bare word", old: `action = "x"`, new: `x`, want: "no field"},
		{name: "a number that is none", old: `action = "x"`, new: `reason.reasonCode = "x"`, want: "whole number"},
		{name: "a quote that is open", old: `action = "x"`, new: `action = "x`, want: "not closed"},
		{name: "another grouping", old: "group_by: key", new: "group_by: moon", want: "group_by:"},
		{name: "an unknown shape", old: "shape: count", new: "shape: round", want: "shape:"},
		{name: "a count of one", old: "default: 2", new: "default: 1", want: "no burst"},
		{name: "windows without a shape for them", old: "shape: count", new: "shape: each", want: "windows:"},
		{name: "a distinct field without its shape", old: "shape: count", new: "shape: count\ndistinct: action", want: "distinct:"},
		{name: "an unknown parameter", old: "${n}", new: "${m}", want: `no parameter "m"`},
		{name: "a join time below the window", old: "join: 2m", new: "join: 30s", want: "join:"},
		{name: "a span below the join time", old: "span: 1h", new: "span: 1m", want: "span:"},
		{name: "a span without end", old: "span: 1h", new: "span: 10000h", want: "span:"},
		{name: "a reason that cannot be spelt", old: "{{.Count}}", new: "{{.Weather}}", want: "reason"},
		{name: "a reason with an unknown parameter", old: "{{.Count}}", new: "{{.Param.m}}", want: "reason"},
	}
	if _, err := detect.ParseRule([]byte(plain), nil); err != nil {
		t.Fatalf("the rule that the cases change is refused: %v", err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(plain, tt.old, tt.new, 1)
			if text == plain {
				t.Fatalf("the case changes nothing")
			}
			_, err := detect.ParseRule([]byte(text), nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one about %q", err, tt.want)
			}
		})
	}
}

func TestOperatorsFilesAddReplaceSetAndSwitchOff(t *testing.T) {
	folder := func(files ...string) fs.FS {
		out := fstest.MapFS{"notes.txt": {Data: []byte("not a rule")}}
		for i, text := range files {
			out[string(rune('a'+i))+".yaml"] = &fstest.MapFile{Data: []byte(text)}
		}
		return out
	}
	other := strings.Replace(plain, "id: plain", "id: other", 1)
	tests := []struct {
		name     string
		override fs.FS
		want     string // "id@version" of each rule, or what the error speaks of.
		wantErr  bool
	}{
		{name: "nothing", override: folder(), want: "plain@1"},
		{name: "a new rule", override: folder(other), want: "other@1 plain@1"},
		{name: "a rule in place of another", override: folder(strings.Replace(plain, "version: 1", "version: 2", 1)), want: "plain@2"},
		{name: "the same version with other contents", override: folder(strings.Replace(plain, "Plain", "Fancy", 1)), want: "not above", wantErr: true},
		{name: "a parameter", override: folder("override: plain\nparameters: {n: 3}"), want: "plain@1"},
		{name: "a rule switched off", override: folder("override: plain\ndisabled: true"), want: ""},
		{name: "a parameter that is not there", override: folder("override: plain\nparameters: {m: 3}"), want: `no "m"`, wantErr: true},
		{name: "a parameter of another kind", override: folder("override: plain\nparameters: {n: many}"), want: "kind", wantErr: true},
		{name: "a rule that is not there", override: folder("override: moon\ndisabled: true"), want: "no rule", wantErr: true},
		{name: "a setting twice", override: folder("override: plain\ndisabled: true", "override: plain\ndisabled: false"), want: "twice", wantErr: true},
		{name: "an unknown field in a setting", override: folder("override: plain\ncolour: red"), want: "colour", wantErr: true},
		{name: "a rule that fails its own test", override: folder(strings.Replace(other, "findings: 1", "findings: 2", 1)), want: "want 2", wantErr: true},
		{name: "a rule without a quiet test", override: folder(strings.Replace(other, "key: K, action: y, repeat: 2}], findings: 0", "key: K, action: x, repeat: 2}], findings: 1", 1)), want: "stays quiet", wantErr: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rules, err := detect.Load(folder(plain), tt.override)
			if tt.wantErr {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got error %v, want one about %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range rules {
				got = append(got, r.ID+"@"+string(rune('0'+r.Version)))
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got rules %v, want %s", got, tt.want)
			}
		})
	}
}

// A parameter that an operator sets reaches windows and filters, and no text in it can
// be more than a value.
func TestParametersReachTheRuleAsValuesOnly(t *testing.T) {
	text := strings.Replace(plain, `action = "x"`, "action = ${names}", 1)
	text = strings.Replace(text, "n: {default: 2}", "n: {default: 2}, names: {default: [x]}", 1)
	use := func(action string, n int) []detect.Record {
		out := make([]detect.Record, n)
		for i := range out {
			out[i] = record("K", i, action)
		}
		return out
	}
	hostile := `x") OR action != ("`
	r, err := detect.ParseRule([]byte(text), map[string]any{"n": 3, "names": []any{"z", hostile, `back\slash`}})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		action string
		n      int
		want   int
	}{
		{name: "below the threshold that was set", action: "z", n: 2},
		{name: "at the threshold that was set", action: "z", n: 3, want: 1},
		{name: "the default is gone", action: "x", n: 9},
		{name: "a quote in a value is text", action: hostile, n: 3, want: 1},
		{name: "a backslash in a value is text", action: `back\slash`, n: 3, want: 1},
		{name: "nothing else matches", action: "y", n: 9},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			found, err := r.Evaluate(use(tt.action, tt.n))
			if err != nil || len(found) != tt.want {
				t.Errorf("got %d findings and %v, want %d", len(found), err, tt.want)
			}
		})
	}
}

// FuzzParseRule: no text makes the reader of rules panic, and what it takes can be
// tested and evaluated.
func FuzzParseRule(f *testing.F) {
	f.Add([]byte(plain))
	f.Add([]byte(strings.Replace(plain, `action = "x"`, `NOT (action:x* OR labels.a="") AND reason.reasonCode>=400`, 1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := detect.ParseRule(data, nil)
		if err != nil {
			return
		}
		if _, err := r.Evaluate([]detect.Record{record("K", 0, "x"), record("K", 1, "x")}); err != nil {
			t.Fatal(err)
		}
	})
}
