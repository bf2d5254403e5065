package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"example.com/keytrail/internal/config"
)

func flags(t *testing.T, args ...string) *pflag.FlagSet {
	t.Helper()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	fs.String("listen", "default", "")
	fs.Int("max-conns", 1, "")
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return fs
}

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "keytrail.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestApplyPrefersFlagThenEnvironmentThenFileThenDefault(t *testing.T) {
	tests := []struct{ name, arg, env, file, want string }{
		{name: "default", want: "default"},
		{name: "file", file: "listen: from-file\n", want: "from-file"},
		{name: "environment over file", env: "from-env", file: "listen: from-file\n", want: "from-env"},
		{name: "flag over all", arg: "--listen=from-flag", env: "from-env", file: "listen: from-file\n", want: "from-flag"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.env != "" {
				t.Setenv(config.EnvName("listen"), tt.env)
			}
			var args []string
			if tt.arg != "" {
				args = append(args, tt.arg)
			}
			fs, name := flags(t, args...), ""
			if tt.file != "" {
				name = file(t, tt.file)
			}
			if err := config.Apply(fs, name, nil); err != nil {
				t.Fatal(err)
			}
			if got := fs.Lookup("listen").Value.String(); got != tt.want {
				t.Errorf("listen = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestApplyNamesWhatIsWrong(t *testing.T) {
	tests := []struct {
		name, file string
		known      []string
		want       []string
	}{
		{name: "unknown lines, all of them", file: "lisen: x\nport: 1\n", want: []string{`"lisen"`, `"port"`}},
		{name: "a value of another type", file: "max-conns: many\n", want: []string{"max-conns", "KEYTRAIL_MAX_CONNS"}},
		{name: "a setting of another command", file: "seed: 1\n", known: []string{"seed"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := config.Apply(flags(t), file(t, tt.file), tt.known)
			if (err != nil) != (len(tt.want) > 0) {
				t.Fatalf("Apply = %v, want an error: %v", err, len(tt.want) > 0)
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("Apply = %v, want it to name %s", err, w)
				}
			}
		})
	}
}
