package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	// target is the package that gets the faults.
	target = "internal/embedded/eventstore"
	// runMax bounds the tests of one fault: one that hangs is seen, too.
	runMax = 90 * time.Second
	// patience is how long the tests of a fault wait for what may never come.
	patience = "4s"
)

// testSuite is the tests that must see a fault.
type testSuite struct {
	name string
	pkg  string
	run  string // Which tests.
}

// mutant is one fault: in the file of the target that holds old exactly once, old
// becomes new. More replacements may belong to it.
type mutant struct {
	name  string
	suite testSuite
	edits []edit
}

type edit struct{ old, new string }

// outcome is what came of a fault.
type outcome string

const (
	dead      outcome = "seen"
	survived  outcome = "SURVIVED"
	unmatched outcome = "NO MATCH"
	unbuilt   outcome = "NO BUILD"
)

type verdict struct {
	outcome outcome
	detail  string
	took    time.Duration
}

// bench compiles and runs.
type bench struct {
	root, scratch string
	sources       map[string]string // Of the target, by absolute path.
}

func newBench(ctx context.Context) (*bench, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}\n{{.Module.Dir}}\n{{range .GoFiles}}{{.}}\n{{end}}", "./"+target).Output()
	if err != nil {
		return nil, fmt.Errorf("find %s (run it from the root of the repository): %w", target, err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	b := &bench{root: lines[1], sources: map[string]string{}}
	for _, name := range lines[2:] {
		path := filepath.Join(lines[0], name)
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read source: %w", err)
		}
		b.sources[path] = string(data)
	}
	if b.scratch, err = os.MkdirTemp("", "kt-mutants-"); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	return b, nil
}

func (b *bench) close() { _ = os.RemoveAll(b.scratch) } // A folder of temporary files.

// try builds the tests with the fault and runs them.
func (b *bench) try(ctx context.Context, m mutant) verdict {
	begun := time.Now()
	overlay, err := b.overlay(m)
	if err != nil {
		return verdict{outcome: unmatched, detail: err.Error()}
	}
	binary := filepath.Join(b.scratch, "test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", binary, "./"+m.suite.pkg) //nolint:gosec // Our own words.
	build.Dir = b.root
	if out, err := build.CombinedOutput(); err != nil {
		return verdict{outcome: unbuilt, detail: string(out), took: time.Since(begun)}
	}
	ctx, cancel := context.WithTimeout(ctx, runMax)
	defer cancel()
	tests := exec.CommandContext(ctx, binary, "-test.failfast", "-test.short", "-test.run", m.suite.run, "-test.timeout", (runMax - 5*time.Second).String()) //nolint:gosec // Built above.
	tests.Dir = filepath.Join(b.root, m.suite.pkg)
	tests.Env = append(os.Environ(), "KEYTRAIL_TEST_PATIENCE="+patience, "KEYTRAIL_TEST_ESDB=")
	out, err := tests.CombinedOutput()
	v := verdict{outcome: survived, took: time.Since(begun)}
	if err != nil {
		v.outcome, v.detail = dead, firstFailure(string(out))
	}
	return v
}

// overlay writes the mutated files and the file that names them.
func (b *bench) overlay(m mutant) (string, error) {
	changed := map[string]string{}
	for _, e := range m.edits {
		var in []string
		for path, text := range b.sources {
			if now, ok := changed[path]; ok {
				text = now
			}
			if n := strings.Count(text, e.old); n == 1 {
				in = append(in, path)
			} else if n > 1 {
				return "", fmt.Errorf("%q is in %s %d times", e.old, filepath.Base(path), n)
			}
		}
		if len(in) != 1 {
			return "", fmt.Errorf("%q is in %d files, want one", e.old, len(in))
		}
		text, ok := changed[in[0]]
		if !ok {
			text = b.sources[in[0]]
		}
		changed[in[0]] = strings.Replace(text, e.old, e.new, 1)
	}
	replace := map[string]string{}
	for path, text := range changed {
		file := filepath.Join(b.scratch, filepath.Base(path))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return "", fmt.Errorf("write mutant: %w", err)
		}
		replace[path] = file
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", fmt.Errorf("write overlay: %w", err)
	}
	overlay := filepath.Join(b.scratch, "overlay.json")
	return overlay, os.WriteFile(overlay, data, 0o600)
}

// firstFailure returns the innermost test that failed.
func firstFailure(out string) string {
	found := ""
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "--- FAIL: "); ok {
			found, _, _ = strings.Cut(name, " (")
		} else if found != "" {
			break
		}
	}
	if found == "" {
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, "panic: ") {
				return strings.TrimSpace(line)
			}
		}
		return errors.New("it failed without naming a test").Error()
	}
	if _, sub, ok := strings.Cut(found, "/"); ok {
		return strings.ReplaceAll(sub, "_", " ")
	}
	return found
}

// suitesOf returns the suites of the faults, each once.
func suitesOf(mutants []mutant) []testSuite {
	var out []testSuite
	seen := map[testSuite]bool{}
	for _, m := range mutants {
		if !seen[m.suite] {
			seen[m.suite] = true
			out = append(out, m.suite)
		}
	}
	return out
}
