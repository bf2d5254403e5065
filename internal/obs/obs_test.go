package obs_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"example.com/keytrail/internal/obs"
)

func TestNewLoggerRefusesWordsItDoesNotKnow(t *testing.T) {
	tests := []struct{ name, level, format, want string }{
		{name: "level", level: "loud", format: "text", want: "choose debug, info, warn or error"},
		{name: "format", level: "info", format: "xml", want: "choose text or json"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := obs.NewLogger(&bytes.Buffer{}, tt.level, tt.format)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("NewLogger(%q, %q) = %v, want an error that says %q", tt.level, tt.format, err, tt.want)
			}
		})
	}
}

func TestNewLoggerKeepsToItsLevelAndFormat(t *testing.T) {
	var b bytes.Buffer
	log, err := obs.NewLogger(&b, "warn", "json")
	if err != nil {
		t.Fatal(err)
	}
	log.InfoContext(t.Context(), "quiet")
	log.WarnContext(t.Context(), "loud")
	var line struct{ Msg string }
	if err := json.Unmarshal(b.Bytes(), &line); err != nil || line.Msg != "loud" {
		t.Errorf("log holds %q (%v), want the one warning as JSON", b.String(), err)
	}
}

func TestNewRegistryCountsTheProcess(t *testing.T) {
	got, err := obs.NewRegistry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range got {
		if f.GetName() == "process_start_time_seconds" {
			return
		}
	}
	t.Errorf("no process_start_time_seconds among %d metrics", len(got))
}
