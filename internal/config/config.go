// Package config fills a command's flags from the environment and a file, so that every
// setting exists once, as a flag, and can be given in three ways.
//
// Order: the flag on the command line, the variable KEYTRAIL_<FLAG>, the line in the
// file, the default. An unknown line in the file is an error, since a misspelt setting
// that is ignored is worse than none.
package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// Prefix opens the names of our environment variables.
const Prefix = "KEYTRAIL"

// FileFlag is the flag that names the file. It is not a setting of the file itself.
const FileFlag = "config"

// EnvName returns the variable that gives flag name: "master-key-file" is
// KEYTRAIL_MASTER_KEY_FILE.
func EnvName(name string) string {
	return Prefix + "_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// Apply sets every flag of fs that was not given on the command line from the
// environment, else from file (YAML, TOML or JSON by its ending; "" for none). known are
// the settings of the program's other commands: the file may hold them too. All faults
// are reported together, each with the name that the user wrote.
func Apply(fs *pflag.FlagSet, file string, known []string) error {
	v := viper.New()
	v.SetEnvPrefix(Prefix)
	v.SetEnvKeyReplacer(strings.NewReplacer("-", "_"))
	v.AutomaticEnv()
	if file != "" {
		v.SetConfigFile(file)
		if err := v.ReadInConfig(); err != nil {
			return fmt.Errorf("read config file %s: %w", file, err)
		}
	}
	errs := unknown(v, fs, filepath.Base(file), known)
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Name == FileFlag || f.Name == "help" || !v.IsSet(f.Name) {
			return
		}
		if err := fs.Set(f.Name, v.GetString(f.Name)); err != nil {
			errs = append(errs, fmt.Errorf("setting %s (%s or the config file): %w", f.Name, EnvName(f.Name), err))
		}
	})
	return errors.Join(errs...)
}

// unknown reports the lines of the file that are no setting of any command.
func unknown(v *viper.Viper, fs *pflag.FlagSet, file string, known []string) []error {
	var errs []error
	for _, key := range v.AllKeys() {
		if v.InConfig(key) && fs.Lookup(key) == nil && !slices.Contains(known, key) {
			errs = append(errs, fmt.Errorf("%s: unknown setting %q; 'keytrail serve --help' lists them", file, key))
		}
	}
	return errs
}
