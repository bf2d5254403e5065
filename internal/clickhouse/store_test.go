package clickhouse_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"example.com/keytrail/internal/clickhouse"
	"example.com/keytrail/internal/clickhouse/clickhousetest"
	embedded "example.com/keytrail/internal/embedded/clickhouse"
)

const simpleTable = "CREATE TABLE t (a UInt64, s String) ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 10000"

// insertRange inserts the rows from..to-1 as one block.
func insertRange(ctx context.Context, s *clickhouse.Store, opt clickhouse.InsertOptions, from, to uint64) (int, error) {
	return s.Insert(ctx, "t", []string{"a", "s"}, opt, func(b clickhouse.Batch) error {
		as, ss := make([]uint64, 0, to-from), make([]string, 0, to-from)
		for i := from; i < to; i++ {
			as, ss = append(as, i), append(ss, fmt.Sprint("row ", i))
		}
		return errors.Join(b.Column(0).Append(as), b.Column(1).Append(ss))
	})
}

// shut closes c, which must work.
func shut(tb testing.TB, c io.Closer) {
	tb.Helper()
	if err := c.Close(); err != nil {
		tb.Errorf("close: %v", err)
	}
}

func count(tb testing.TB, s *clickhouse.Store, table string) (n uint64) {
	tb.Helper()
	if err := s.Row(tb.Context(), clickhouse.Select{Table: table, Scope: clickhouse.ScopeAll(), Columns: []string{"count()"}}, &n); err != nil {
		tb.Fatal(err)
	}
	return n
}

func TestEveryColumnTypeSurvivesTheRoundTrip(t *testing.T) {
	s := clickhousetest.Store(t)
	exec(t, s, `CREATE TABLE kinds (
		s String, lc LowCardinality(String), u8 UInt8, u16 UInt16, u32 UInt32, u64 UInt64, i64 Int64, f Float64,
		dt DateTime64(3, 'UTC'), id UUID, ip IPv6, m Map(String, String), ss Array(String), us Array(UInt64),
		nt Nullable(DateTime64(3, 'UTC')), f16 FixedString(16), f32 FixedString(32), b Bool, e Enum8('x' = 1, 'y' = 2)
	) ENGINE = MergeTree ORDER BY u64`)
	type row struct {
		S, LC    string
		U8       uint8
		U16      uint16
		U32      uint32
		U64      uint64
		I64      int64
		F        float64
		DT       time.Time
		ID       uuid.UUID
		IP       netip.Addr
		M        map[string]string
		SS       []string
		US       []uint64
		NT       *time.Time
		F16, F32 string
		B        bool
		E        string
	}
	columns := []string{"s", "lc", "u8", "u16", "u32", "u64", "i64", "f", "dt", "id", "ip", "m", "ss", "us", "nt", "f16", "f32", "b", "e"}
	want := []row{
		{
			S: "a'\\\x00\xff", LC: "low", U8: 255, U16: 65535, U32: 1<<32 - 1, U64: 1, I64: -1 << 63, F: 1.0 / 3, DT: noon,
			ID: uuid.MustParse("8c1e7e36-7f1c-4bd4-9a4e-1a2b3c4d5e6f"), IP: netip.MustParseAddr("2001:db8::1"),
			M: map[string]string{"k": "v", "": ""}, SS: []string{"", "x"}, US: []uint64{1<<64 - 1}, NT: &noon,
			F16: "0123456789abcdef", F32: strings.Repeat("\x00\xff", 16), B: true, E: "y",
		},
		{
			U64: 2, DT: time.UnixMilli(0).UTC(), IP: netip.MustParseAddr("::ffff:192.0.2.1"), M: map[string]string{}, SS: []string{}, US: []uint64{},
			F16: strings.Repeat("\x00", 16), F32: strings.Repeat("\x00", 32), E: "x",
		},
	}
	n, err := s.Insert(t.Context(), "kinds", columns, clickhouse.InsertOptions{}, func(b clickhouse.Batch) error {
		for _, r := range want {
			if err := b.Append(r.S, r.LC, r.U8, r.U16, r.U32, r.U64, r.I64, r.F, r.DT, r.ID, r.IP, r.M, r.SS, r.US, r.NT, r.F16, r.F32, r.B, r.E); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || n != len(want) {
		t.Fatal(n, err)
	}
	rows, err := s.Query(t.Context(), clickhouse.Select{Table: "kinds", Scope: clickhouse.ScopeAll(), Columns: columns, OrderBy: []string{"u64"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []row
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.S, &r.LC, &r.U8, &r.U16, &r.U32, &r.U64, &r.I64, &r.F, &r.DT, &r.ID, &r.IP, &r.M, &r.SS, &r.US, &r.NT, &r.F16, &r.F32, &r.B, &r.E); err != nil {
			t.Fatal(err)
		}
		got = append(got, r)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a.Unmap() == b.Unmap() })); diff != "" {
		t.Errorf("rows, want -, got +:\n%s", diff)
	}
}

func TestATokenMakesARepeatHarmless(t *testing.T) {
	s := clickhousetest.Store(t)
	exec(t, s, simpleTable)
	tests := []struct {
		name     string
		token    string
		from, to uint64
		want     uint64 // In the table afterwards.
	}{
		{"first", "g1/1/t", 0, 100, 100},
		{"repeat", "g1/1/t", 0, 100, 100},
		{"other rows under a used token are dropped in silence", "g1/1/t", 100, 150, 100},
		{"same rows under another token", "g1/2/t", 0, 100, 200},
		{"no token", "", 0, 100, 300},
		{"a token with everything in it", "g1/'\\&=?%00 é", 0, 1, 301},
		{"and its repeat", "g1/'\\&=?%00 é", 0, 1, 301},
	}
	for _, tt := range tests {
		n, err := insertRange(t.Context(), s, clickhouse.InsertOptions{Token: tt.token, Fsync: true}, tt.from, tt.to)
		if got := count(t, s, "t"); err != nil || n != int(tt.to-tt.from) || got != tt.want {
			t.Errorf("%s: %d rows, %v, then %d in the table, want %d", tt.name, n, err, got, tt.want)
		}
	}
}

func TestAMillionRowsAreOneBlockAndOnePart(t *testing.T) {
	s := clickhousetest.Store(t)
	exec(t, s, simpleTable)
	exec(t, s, "SYSTEM STOP MERGES t")
	wide := strings.Repeat("wide ", 60) // 300 MB: past the server's own block limits.
	n, err := s.Insert(t.Context(), "t", []string{"a", "s"}, clickhouse.InsertOptions{Token: "x"}, func(b clickhouse.Batch) error {
		as, ss := make([]uint64, clickhouse.RowsMax), make([]string, clickhouse.RowsMax)
		for i := range as {
			as[i], ss[i] = uint64(i), wide
		}
		return errors.Join(b.Column(0).Append(as), b.Column(1).Append(ss))
	})
	if err != nil || n != clickhouse.RowsMax {
		t.Fatal(n, err)
	}
	var parts, rows uint64
	q := clickhouse.Select{
		Table: "system.parts", Scope: clickhouse.ScopeAll(), Columns: []string{"count()", "sum(rows)"},
		Where: []clickhouse.Cond{clickhouse.Eq("database", s.Database()), clickhouse.Eq("table", "t"), clickhouse.Eq("active", true)},
	}
	if err := s.Row(t.Context(), q, &parts, &rows); err != nil || parts != 1 || rows != clickhouse.RowsMax {
		t.Errorf("%d rows in %d parts, %v; want one part", rows, parts, err)
	}
}

func TestBadInsertsSendNothing(t *testing.T) {
	s := clickhousetest.Store(t)
	exec(t, s, simpleTable)
	fine := func(b clickhouse.Batch) error { return b.Append(uint64(1), "x") }
	boom := errors.New("boom")
	tests := []struct {
		name    string
		table   string
		columns []string
		fill    func(clickhouse.Batch) error
		want    error
	}{
		{"fill fails", "t", []string{"a", "s"}, func(b clickhouse.Batch) error { return errors.Join(fine(b), boom) }, boom},
		{"unknown table", "nope", []string{"a"}, fine, clickhouse.ErrSchema},
		{"unknown column", "t", []string{"a", "nope"}, fine, clickhouse.ErrSchema},
		{"no columns", "t", nil, fine, clickhouse.ErrQuery},
		{"a column twice", "t", []string{"a", "a"}, fine, clickhouse.ErrQuery},
		{"SQL in a name", "t (a)", []string{"a"}, fine, clickhouse.ErrQuery},
		{"columns of unequal length", "t", []string{"a", "s"}, func(b clickhouse.Batch) error { return b.Column(0).Append([]uint64{1, 2}) }, nil},
		{"a wrong type", "t", []string{"a", "s"}, func(b clickhouse.Batch) error { return b.Append("x", 1) }, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, err := s.Insert(t.Context(), tt.table, tt.columns, clickhouse.InsertOptions{}, tt.fill)
			if err == nil || n != 0 || (tt.want != nil && !errors.Is(err, tt.want)) {
				t.Errorf("%d rows, %v; want %v", n, err, tt.want)
			}
		})
	}
	if n, err := s.Insert(t.Context(), "t", []string{"a"}, clickhouse.InsertOptions{}, func(clickhouse.Batch) error { return nil }); n != 0 || err != nil {
		t.Errorf("an empty insert: %d, %v", n, err)
	}
	if n := count(t, s, "t"); n != 0 {
		t.Errorf("%d rows are in the table", n)
	}
	exec(t, s, "ALTER TABLE t ADD COLUMN later String")
	if _, err := s.Insert(t.Context(), "t", []string{"later"}, clickhouse.InsertOptions{}, func(b clickhouse.Batch) error { return b.Append("x") }); err != nil {
		t.Errorf("a column added since: %v", err)
	}
}

func TestFsyncIsTurnedOnWhereItIsAskedFor(t *testing.T) {
	s := clickhousetest.Store(t)
	exec(t, s, simpleTable)
	settings := func() (engine string) {
		q := clickhouse.Select{Table: "system.tables", Scope: clickhouse.ScopeAll(), Columns: []string{"engine_full"}, Where: []clickhouse.Cond{clickhouse.Eq("database", s.Database()), clickhouse.Eq("name", "t")}}
		if err := s.Row(t.Context(), q, &engine); err != nil {
			t.Fatal(err)
		}
		return engine
	}
	for _, fsync := range []bool{false, true, true} {
		if _, err := insertRange(t.Context(), s, clickhouse.InsertOptions{Fsync: fsync}, 0, 1); err != nil {
			t.Fatal(err)
		}
		on := strings.Contains(settings(), "fsync_after_insert = 1") && strings.Contains(settings(), "fsync_part_directory = 1")
		if on != fsync {
			t.Errorf("after an insert with fsync %t the table has %s", fsync, settings())
		}
	}
}

func TestDeletesAreDoneWhenTheyReturn(t *testing.T) {
	s := clickhousetest.Store(t)
	exec(t, s, simpleTable)
	if _, err := insertRange(t.Context(), s, clickhouse.InsertOptions{}, 0, 1000); err != nil {
		t.Fatal(err)
	}
	exec(t, s, "DELETE FROM t WHERE a >= ? SETTINGS lightweight_deletes_sync = 2", 400)
	if n := count(t, s, "t"); n != 400 {
		t.Errorf("%d rows are left, want 400", n)
	}
	exec(t, s, "ALTER TABLE t ADD COLUMN at DateTime64(3, 'UTC')")
	exec(t, s, "DELETE FROM t WHERE at < ? SETTINGS lightweight_deletes_sync = 2", noon)
	if n := count(t, s, "t"); n != 0 {
		t.Errorf("%d rows are left, want none", n)
	}
}

func TestErrorsAreToldByCode(t *testing.T) {
	s := clickhousetest.Store(t)
	err := s.Exec(t.Context(), "DROP TABLE nope")
	var e *clickhouse.Error
	if !errors.As(err, &e) || e.Code != clickhouse.CodeUnknownTable || errors.Is(err, clickhouse.ErrUnavailable) {
		t.Errorf("unknown table: %v", err)
	}
	if err := s.Row(t.Context(), clickhouse.Select{Table: "system.one", Scope: clickhouse.ScopeAll(), Columns: []string{"1"}, Where: []clickhouse.Cond{clickhouse.Raw("dummy = 7")}}, new(uint8)); !errors.Is(err, clickhouse.ErrNoRows) {
		t.Errorf("no row: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	slow := clickhouse.Select{Table: "system.numbers", Scope: clickhouse.ScopeAll(), Columns: []string{"count()"}}
	if err := s.Row(ctx, slow, new(uint64)); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, clickhouse.ErrUnavailable) {
		t.Errorf("deadline: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if err := s.Row(ctx, slow, new(uint64)); !errors.Is(err, context.Canceled) || errors.Is(err, clickhouse.ErrUnavailable) {
		t.Errorf("cancelled: %v", err)
	}
	slow.Settings = map[string]any{"max_execution_time": 0.1}
	if err := s.Row(t.Context(), slow, new(uint64)); !errors.As(err, &e) || e.Code != clickhouse.CodeTimeoutExceeded {
		t.Errorf("the server's time limit, given as a setting: %v", err)
	}
	for code, want := range map[int]bool{202: true, 252: true, 60: false, 241: false} {
		if got := errors.Is(&clickhouse.Error{Code: code}, clickhouse.ErrUnavailable); got != want {
			t.Errorf("code %d unavailable: %t, want %t", code, got, want)
		}
	}
}

func TestALongResultIsStreamedWhole(t *testing.T) {
	s := clickhousetest.Store(t)
	const n = 5_000_000
	runtime.GC() // Other tests' blocks are not this one's.
	rows, err := s.Query(t.Context(), clickhouse.Select{Table: "system.numbers", Scope: clickhouse.ScopeAll(), Columns: []string{"number", "toString(number)"}, Limit: n})
	if err != nil {
		t.Fatal(err)
	}
	var (
		got, sum, number uint64
		text             string
		peak             uint64
		mem              runtime.MemStats
	)
	for rows.Next() {
		if err := rows.Scan(&number, &text); err != nil {
			t.Fatal(err)
		}
		got++
		sum += number
		if got%500_000 == 0 {
			runtime.ReadMemStats(&mem)
			peak = max(peak, mem.HeapAlloc)
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		t.Fatal(err)
	}
	if got != n || sum != n*(n-1)/2 {
		t.Errorf("%d rows with the sum %d", got, sum)
	}
	if peak > 128<<20 {
		t.Errorf("the heap grew to %d MiB", peak>>20)
	}
}

func TestAResultThatBreaksOffIsAnError(t *testing.T) {
	s := clickhousetest.Store(t)
	q := clickhouse.Select{Table: "system.numbers", Scope: clickhouse.ScopeAll(), Columns: []string{"throwIf(number = 2000000)"}, Limit: 3_000_000, Settings: map[string]any{"max_threads": 1}}
	rows, err := s.Query(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for rows.Next() {
		n++
	}
	var e *clickhouse.Error
	if err := rows.Err(); !errors.As(err, &e) || e.Code != 395 {
		t.Errorf("after %d rows: %v, want code 395", n, err)
	}
	if n == 0 || n >= 3_000_000 {
		t.Errorf("%d rows came", n)
	}
	if err := rows.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestClosingAResultEarlyFreesItsConnection(t *testing.T) {
	socket := clickhousetest.Server(t).Socket()
	s, err := clickhouse.Open(t.Context(), clickhouse.Config{Socket: socket, Database: "early", MaxConns: 1, Logger: clickhousetest.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer shut(t, s)
	for range 5 {
		rows, err := s.Query(t.Context(), clickhouse.Select{Table: "system.numbers", Scope: clickhouse.ScopeAll(), Columns: []string{"number"}})
		if err != nil {
			t.Fatal(err)
		}
		if !rows.Next() {
			t.Fatalf("no row: %v", rows.Err())
		}
		if err := errors.Join(rows.Close(), rows.Close(), rows.Err()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMigrationsRunOnceAndAreHeldToWhatRan(t *testing.T) {
	s := clickhousetest.Store(t)
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	one := "-- Comment; with semicolon;\nCREATE TABLE IF NOT EXISTS m (a UInt64)\n  ENGINE = MergeTree ORDER BY a;\n\nINSERT INTO m VALUES (1);\n"
	fsys := fstest.MapFS{"001_first.sql": file(one), "README.md": file("not a migration")}
	migrate := func() error { return s.Migrate(t.Context(), fsys) }
	for range 2 {
		if err := migrate(); err != nil || count(t, s, "m") != 1 {
			t.Fatalf("first: %v, %d rows", err, count(t, s, "m"))
		}
	}
	fsys["002_broken.sql"] = file("INSERT INTO m VALUES (2);\nCREATE TABLE broken;\n")
	var e *clickhouse.Error
	if err := migrate(); !errors.As(err, &e) || !strings.Contains(err.Error(), "002_broken.sql, statement 2") {
		t.Errorf("a broken file: %v", err)
	}
	fsys["002_broken.sql"] = file("INSERT INTO m VALUES (2);\n")
	if err := migrate(); err != nil || count(t, s, "m") != 3 {
		t.Errorf("the broken file mended runs from its start: %v, %d rows", err, count(t, s, "m"))
	}
	fsys["001_first.sql"] = file(one + "\n")
	if err := migrate(); !errors.Is(err, clickhouse.ErrSchema) || !strings.Contains(err.Error(), "001_first.sql") {
		t.Errorf("an edited file: %v", err)
	}
	delete(fsys, "002_broken.sql")
	fsys["001_first.sql"] = file(one)
	if err := migrate(); !errors.Is(err, clickhouse.ErrSchema) || !strings.Contains(err.Error(), "newer") {
		t.Errorf("a newer database: %v", err)
	}
	for name, bad := range map[string]fstest.MapFS{
		"name":      {"1_x.sql": file("SELECT 1;\n")},
		"semicolon": {"003_x.sql": file("SELECT 1\n")},
		"number":    {"001_a.sql": file("SELECT 1;\n"), "001_b.sql": file("SELECT 1;\n")},
	} {
		if err := s.Migrate(t.Context(), bad); !errors.Is(err, clickhouse.ErrSchema) {
			t.Errorf("bad %s: %v", name, err)
		}
	}
}

func TestOpenWaitsForAServerAndTellsWhatIsWrong(t *testing.T) {
	const password = "hunter2secret"
	log := clickhousetest.Logger(t)
	for _, tt := range []struct {
		name string
		cfg  clickhouse.Config
		want string
	}{
		{"nothing given", clickhouse.Config{}, "neither a DSN nor a socket"},
		{"bad database", clickhouse.Config{Socket: "x", Database: "a b", Logger: log}, "database name"},
		{"bad DSN", clickhouse.Config{DSN: "clickhouse://u:" + password + "@host:port:1/%zz", Logger: log}, "not a valid"},
		{"bad database in the DSN", clickhouse.Config{DSN: "clickhouse://u:" + password + "@127.0.0.1:1/a%20b", Logger: log}, "database name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := clickhouse.Open(t.Context(), tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), password) {
				t.Errorf("got %v, want %q and no password", err, tt.want)
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	for name, cfg := range map[string]clickhouse.Config{
		"no socket": {Socket: filepath.Join(t.TempDir(), "none.sock"), Logger: log},
		"no server": {DSN: "http://u:" + password + "@127.0.0.1:1/k", Logger: log},
	} {
		if _, err := clickhouse.Open(ctx, cfg); !errors.Is(err, clickhouse.ErrUnavailable) || strings.Contains(err.Error(), password) {
			t.Errorf("%s: %v, want ErrUnavailable and no password", name, err)
		}
	}
}

// TestTheSameCodeWorksOverTCP drives the HTTP interface the way a server far away
// would be, by its DSN.
func TestTheSameCodeWorksOverTCP(t *testing.T) {
	socket := clickhousetest.Server(t).Socket()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	forward := forwarder(t, socket)
	server := &http.Server{Handler: forward}
	go func() { _ = server.Serve(listener) }()
	defer shut(t, server)
	s, err := clickhouse.Open(t.Context(), clickhouse.Config{DSN: "http://" + listener.Addr().String() + "/over_tcp", Logger: clickhousetest.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer shut(t, s)
	exec(t, s, "DROP TABLE IF EXISTS t")
	exec(t, s, simpleTable)
	for range 2 {
		if _, err := insertRange(t.Context(), s, clickhouse.InsertOptions{Token: "x"}, 0, 10); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(t, s, "t"); n != 10 || s.Database() != "over_tcp" {
		t.Errorf("%d rows in %s", n, s.Database())
	}
}

func TestWhatIsAcknowledgedSurvivesAKilledEngine(t *testing.T) {
	server, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Library: clickhousetest.Library(t), Logger: clickhousetest.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer shut(t, server)
	s, err := clickhouse.Open(t.Context(), clickhouse.Config{Socket: server.Socket(), Logger: clickhousetest.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer shut(t, s)
	exec(t, s, simpleTable)
	const blocks, rows = 60, 500
	var (
		kill sync.WaitGroup
		next = make(chan int)
	)
	kill.Go(func() {
		for n := range next {
			if n%20 == 10 {
				_ = syscall.Kill(server.Status().PID, syscall.SIGKILL)
			}
		}
	})
	pause := time.NewTicker(10 * time.Millisecond)
	defer pause.Stop()
	unavailable := 0
	for n := range uint64(blocks) {
		next <- int(n)
		for {
			_, err := insertRange(t.Context(), s, clickhouse.InsertOptions{Token: fmt.Sprint("g/", n, "/t"), Fsync: true}, n*rows, (n+1)*rows)
			if err == nil {
				break
			}
			if !errors.Is(err, clickhouse.ErrUnavailable) {
				t.Fatalf("block %d: %v, want ErrUnavailable", n, err)
			}
			unavailable++
			<-pause.C
		}
	}
	close(next)
	kill.Wait()
	var total, distinct uint64
	q := clickhouse.Select{Table: "t", Scope: clickhouse.ScopeAll(), Columns: []string{"count()", "uniqExact(a)"}}
	eventuallyRow(t, s, q, &total, &distinct)
	t.Logf("%d rows, %d distinct, %d attempts met no engine", total, distinct, unavailable)
	if distinct != blocks*rows {
		t.Errorf("%d distinct rows, want %d", distinct, blocks*rows)
	}
	if unavailable == 0 {
		t.Error("the kills met no insert")
	}
}

// eventuallyRow is Row for an engine that may be starting again.
func eventuallyRow(t *testing.T, s *clickhouse.Store, q clickhouse.Query, dest ...any) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		err := s.Row(t.Context(), q, dest...)
		if err == nil {
			return
		}
		if !errors.Is(err, clickhouse.ErrUnavailable) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
