package clickhouse_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	embedded "example.com/keytrail/internal/embedded/clickhouse"
)

// A merge that runs out of disk leaves a part of empty files. This one is emptied by hand:
// the torture test fills disks.
func TestAPartThatAMergeSpoiltIsReplacedByWhatItWasMadeOf(t *testing.T) {
	dir := t.TempDir()
	s := start(t, embedded.Config{Dir: dir})
	c := client(t, s.Socket())
	must(t, c, "CREATE TABLE t (a UInt64, s String, INDEX m a TYPE minmax) ENGINE = MergeTree ORDER BY a")
	must(t, c, "INSERT INTO t SELECT number, toString(number) FROM numbers(1000)")
	must(t, c, "INSERT INTO t SELECT number + 1000, toString(number) FROM numbers(1000)")
	must(t, c, "OPTIMIZE TABLE t FINAL")
	merged, err := filepath.Glob(filepath.Join(dir, "store", "*", "*", "all_1_2_1", "*"))
	if err != nil || len(merged) < 5 {
		t.Fatalf("files of the merged part: %q, %v", merged, err)
	}
	for _, path := range merged {
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
	}
	const question = "SELECT count(), sum(length(s)) FROM t WHERE s != ''"
	a := ask(t, c, question)
	if a.status == http.StatusOK {
		t.Fatalf("the spoilt part is read: %s", a.body)
	}
	pid := s.Status().PID
	eventually(t, "another engine is started", func() bool { st := s.Status(); return st.Ready && st.PID != pid })
	c = client(t, s.Socket())
	if got, want := must(t, c, question), "2000\t5780"; strings.TrimSpace(got) != want {
		t.Errorf("the table holds %q, want %q", got, want)
	}
}
