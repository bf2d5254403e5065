package detect

import (
	"bytes"
	"cmp"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"

	"github.com/goccy/go-yaml"
)

//go:embed rules/*.yaml
var embedded embed.FS

// Builtin returns the rules that come with the program.
func Builtin() fs.FS {
	sub, err := fs.Sub(embedded, "rules")
	if err != nil {
		panic(err) // The folder is embedded above.
	}
	return sub
}

// Load reads every *.yaml in the top folder of base, then of each of overrides, and
// returns the rules by id. A file of an override is either a rule, new or in place of
// the one with its id, or a setting of one:
//
//	override: denied-burst
//	disabled: false
//	parameters: {threshold: 30}
//
// A rule in place of another must have a higher version, since findings name rule and
// version. Every rule's own tests are run with its defaults; one that fails them is
// refused. All that is wrong is reported at once.
func Load(base fs.FS, overrides ...fs.FS) ([]*Rule, error) {
	l := loader{rules: map[string]ruleSource{}, settings: map[string]settingFile{}}
	errs := make([]error, 0, 1+len(overrides))
	errs = append(errs, l.folder(base, false))
	for _, o := range overrides {
		errs = append(errs, l.folder(o, true))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return l.compile()
}

// settingFile is an override that changes a rule's parameters or switches it off.
type settingFile struct {
	Override   string         `yaml:"override"`
	Disabled   bool           `yaml:"disabled"`
	Parameters map[string]any `yaml:"parameters"`
}

type ruleSource struct {
	name string
	data []byte
	rule *Rule // With its defaults.
}

type loader struct {
	rules    map[string]ruleSource
	settings map[string]settingFile
}

func (l *loader) folder(from fs.FS, override bool) error {
	entries, err := fs.ReadDir(from, ".")
	if err != nil {
		return fmt.Errorf("read rules: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if e.IsDir() || path.Ext(e.Name()) != ".yaml" {
			continue
		}
		data, err := fs.ReadFile(from, e.Name())
		if err == nil {
			err = l.file(e.Name(), data, override)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", e.Name(), err))
		}
	}
	return errors.Join(errs...)
}

func (l *loader) file(name string, data []byte, override bool) error {
	var kind struct {
		Override string `yaml:"override"`
	}
	if err := yaml.Unmarshal(data, &kind); err != nil {
		return fmt.Errorf("read rule: %w", err)
	}
	if kind.Override != "" && override {
		var s settingFile
		if err := yaml.UnmarshalWithOptions(data, &s, yaml.Strict()); err != nil {
			return fmt.Errorf("read override: %w", err)
		}
		if _, twice := l.settings[s.Override]; twice {
			return fmt.Errorf("rule %q is overridden twice", s.Override)
		}
		l.settings[s.Override] = s
		return nil
	}
	r, err := ParseRule(data, nil)
	if err != nil {
		return err
	}
	if err := r.Test(); err != nil {
		return err
	}
	old, exists := l.rules[r.ID]
	switch {
	case exists && !override:
		return fmt.Errorf("rule %s stands in %s too", r.ID, old.name)
	case exists && r.Version <= old.rule.Version && !bytes.Equal(data, old.data):
		return fmt.Errorf("rule %s: version %d is not above %d, which it replaces", r.ID, r.Version, old.rule.Version)
	}
	l.rules[r.ID] = ruleSource{name: name, data: data, rule: r}
	return nil
}

func (l *loader) compile() ([]*Rule, error) {
	var errs []error
	for id := range l.settings {
		if _, ok := l.rules[id]; !ok {
			errs = append(errs, fmt.Errorf("override: there is no rule %q", id))
		}
	}
	var out []*Rule
	for _, src := range slices.SortedFunc(maps.Values(l.rules), func(a, b ruleSource) int { return cmp.Compare(a.rule.ID, b.rule.ID) }) {
		s := l.settings[src.rule.ID]
		if s.Disabled {
			continue
		}
		r := src.rule
		if len(s.Parameters) > 0 {
			var err error
			if r, err = ParseRule(src.data, s.Parameters); err != nil {
				errs = append(errs, fmt.Errorf("override: %w", err))
				continue
			}
		}
		out = append(out, r)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}
