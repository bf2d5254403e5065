package archtest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// No container engine runs where this is tested: only the file's form and its references
// are checked.
func TestComposeFileIsWellFormedAndRefersToWhatIsThere(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "docker-compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Services map[string]struct {
			Image       string
			Build       struct{ Context, Dockerfile string }
			Command     []string
			Ports       []string
			Volumes     []string
			Environment map[string]string
			DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
			Healthcheck struct {
				Test     []string
				Interval string
				Retries  int
			}
		}
		Volumes map[string]any
	}
	if err := yaml.UnmarshalWithOptions(b, &file, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	for name, s := range file.Services {
		if s.Image == "" {
			t.Errorf("service %s has no image", name)
		}
		for dep, want := range s.DependsOn {
			if on, ok := file.Services[dep]; !ok || want.Condition == "service_healthy" && len(on.Healthcheck.Test) == 0 {
				t.Errorf("service %s waits for %s, which is missing or never says that it is healthy", name, dep)
			}
		}
		for _, v := range s.Volumes {
			if volume, _, _ := strings.Cut(v, ":"); !hasKey(file.Volumes, volume) {
				t.Errorf("service %s mounts %s, which is not declared", name, volume)
			}
		}
		if s.Build.Dockerfile != "" {
			if _, err := os.Stat(filepath.Join(root, s.Build.Dockerfile)); err != nil {
				t.Errorf("service %s: %v", name, err)
			}
		}
	}
	keytrail := strings.Join(file.Services["keytrail"].Command, " ")
	for _, want := range []string{"esdb://eventstore:2113", "clickhouse://", "@clickhouse:9000"} {
		if !strings.Contains(keytrail, want) {
			t.Errorf("keytrail's command %q does not name %s", keytrail, want)
		}
	}
}

func hasKey(m map[string]any, key string) bool { _, ok := m[key]; return ok }
