package ingest_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/keytrail/domain"
	"example.com/keytrail/ingest"
	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/embedded/eventstore"
	"example.com/keytrail/internal/eventlog"
	"example.com/keytrail/internal/httpx"
	"example.com/keytrail/internal/keystore"
)

// testClock is real time plus what a test adds.
type testClock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *testClock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

// usesSeen keeps recorded uses in memory, or fails as told.
type usesSeen struct {
	mu   sync.Mutex
	list []domain.Use
	err  error
	then func() // Called while a use is recorded.
}

// fail makes recording fail with err.
func (u *usesSeen) fail(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.err = err
}

// during has f called while a use is recorded.
func (u *usesSeen) during(f func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.then = f
}

func (u *usesSeen) RecordUse(_ context.Context, use domain.Use) (uint64, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.then != nil {
		u.then()
	}
	if u.err != nil {
		return 0, u.err
	}
	u.list = append(u.list, use)
	return 1, nil
}

func (u *usesSeen) all() []domain.Use {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.list)
}

// logLister lists keys by reading the whole log: slow, exact, and no table.
type logLister struct{ log *eventlog.Log }

func (l logLister) ListKeys(ctx context.Context, q domain.KeysQuery) (domain.KeysPage, error) {
	states := map[domain.KeyID]domain.KeyState{}
	events, err := readLog(ctx, l.log, domain.KeyStreams)
	if err != nil {
		return domain.KeysPage{}, err
	}
	for _, rec := range events {
		s := rec.Event.(domain.KeyEvent).State()
		states[s.ID] = s
	}
	var page domain.KeysPage
	for _, id := range slices.Sorted(maps.Keys(states)) {
		s := states[id]
		if !s.Deleted && slices.Contains(q.Accounts, s.Account) && (q.IAMID == "" || q.IAMID == s.IAMID) && (q.Type == "" || q.Type == s.Kind || slices.Contains(q.Kinds, s.Kind)) &&
			(q.Identities == nil || slices.Contains(q.Identities, s.IAMID)) && (s.Kind != domain.KindClassic || slices.Contains(q.ClassicOf, s.IAMID)) {
			page.Keys = append(page.Keys, s)
		}
	}
	if len(page.Keys) > q.PageSize {
		page.Keys, page.Next = page.Keys[:q.PageSize], "more"
	}
	return page, nil
}

// readLog returns all events of streams with prefix, in log order.
func readLog(ctx context.Context, log *eventlog.Log, prefix string) ([]domain.Recorded, error) {
	sub, err := log.Subscribe(ctx, eventlog.SubscribeOptions{Prefixes: []string{prefix}, FromStart: true})
	if err != nil {
		return nil, err
	}
	defer sub.Close()
	var out []domain.Recorded
	for {
		d, err := sub.Next(ctx)
		if err != nil {
			return nil, err
		}
		if d.Event != nil {
			rec, err := eventlog.Decode(*d.Event)
			if err != nil {
				return nil, err
			}
			out = append(out, rec)
		}
		if d.CaughtUp {
			return out, nil
		}
	}
}

type fixedActivity struct{}

func (fixedActivity) KeyActivity(context.Context, domain.AccountID, domain.KeyID) (ingest.KeyActivity, error) {
	t := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return ingest.KeyActivity{LastAuthn: &t, AuthnCount: 3}, nil
}

// waits remembers what it was asked to wait for.
type waits struct {
	mu   sync.Mutex
	last uint64
}

func (w *waits) Wait(_ context.Context, position uint64) (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = position
	return position, nil
}

// node is the write side on a real event store, served over HTTP.
type node struct {
	tb       testing.TB
	dir      string
	log      *eventlog.Log
	store    *keystore.Store
	dirs     *auth.Directory
	pulses   *auth.Pulses
	commands *ingest.Commands
	refusals *ingest.Refusals
	clock    *testClock
	uses     *usesSeen
	used     *usedActions
	waits    *waits
	seen     *logActivity
	reports  *ingest.Reports
	access   *ingest.AccessLog
	fails    error // Of records of reads, from the next serve on.
	boot     ingest.Bootstrapped
	admin    string // The first administrator's key.
	srv      *httptest.Server
	stop     func() // Ends the node's goroutines; the log stays.
}

// openLog serves an empty log until the test ends.
func openLog(tb testing.TB) *eventlog.Log {
	tb.Helper()
	dir, err := os.MkdirTemp("", "kt")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { cleanup(tb, os.RemoveAll(dir)) })
	socket := filepath.Join(dir, "s")
	server, err := eventstore.Open(eventstore.Config{Dir: tb.TempDir(), Socket: socket, Logger: testLogger(tb)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { cleanup(tb, server.Close(context.WithoutCancel(tb.Context()))) })
	log, err := eventlog.Open(tb.Context(), eventlog.Config{Socket: socket, Logger: testLogger(tb)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { cleanup(tb, log.Close()) })
	return log
}

func cleanup(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Error(err)
	}
}

// newNode starts a node on an empty log.
func newNode(tb testing.TB) *node {
	tb.Helper()
	return startNode(tb, openLog(tb), tb.TempDir())
}

// startNode starts a node with the data folder dir on log.
func startNode(tb testing.TB, log *eventlog.Log, dir string) *node {
	tb.Helper()
	n := &node{tb: tb, dir: dir, log: log, clock: &testClock{}, uses: &usesSeen{}, used: &usedActions{}, waits: &waits{}, seen: &logActivity{log: log}}
	var err error
	if n.store, err = keystore.Open(tb.Context(), dir, "", testLogger(tb)); err != nil {
		tb.Fatal(err)
	}
	n.boot, err = ingest.Bootstrap(tb.Context(), ingest.BootstrapConfig{
		Dir: dir, Log: log, Store: n.store, Now: n.clock.Now, Random: rand.Reader, Logger: testLogger(tb), CreateFile: keystore.CreateFile,
	})
	if err != nil {
		tb.Fatal(err)
	}
	secret, err := os.ReadFile(filepath.Join(dir, "admin.key"))
	if err != nil {
		tb.Fatal(err)
	}
	n.admin = strings.TrimSpace(string(secret))
	n.dirs = auth.NewDirectory(auth.FollowLog(log), testLogger(tb))
	if n.pulses, err = auth.NewPulses(auth.PulsesConfig{
		Log: log, Node: n.store.InstallationID(), Nonce: rand.Text(), Clock: auth.SinceBoot, Logger: testLogger(tb),
	}, n.dirs); err != nil {
		tb.Fatal(err)
	}
	n.refusals = ingest.NewRefusals(log, n.store.InstallationID(), rand.Text(), n.clock.Now, testLogger(tb))
	n.commands = ingest.NewCommands(ingest.CommandsConfig{
		Log: log, Directory: n.dirs, Store: n.store, Refusals: n.refusals, Now: n.clock.Now, Random: rand.Reader,
	})
	n.access = ingest.NewAccessLog(log, n.store.InstallationID(), rand.Text(), n.clock.Now)
	n.reports = ingest.NewReports(n.commands, n.seen, n.waits, testLogger(tb))
	n.run()
	n.serve()
	return n
}

// run starts what cmd would start.
func (n *node) run() {
	ctx, cancel := context.WithCancel(n.tb.Context())
	var wg sync.WaitGroup
	wg.Go(func() { cleanup(n.tb, n.dirs.Run(ctx)) })
	wg.Go(func() { cleanup(n.tb, n.refusals.Run(ctx)) })
	wg.Go(func() { cleanup(n.tb, n.pulses.Run(ctx)) })
	wg.Go(func() { cleanup(n.tb, n.reports.Run(ctx)) })
	n.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	n.tb.Cleanup(n.stop)
	if err := n.dirs.WaitReady(ctx); err != nil {
		n.tb.Fatal(err)
	}
}

func (n *node) serve() {
	engine := httpx.NewEngine(testLogger(n.tb))
	ingest.NewKeyAPI(ingest.KeyAPIConfig{
		Commands: n.commands, Auth: auth.NewAuthenticator(n.dirs, n.pulses, n.store, n.clock.Now), Directory: n.dirs, Refusals: n.refusals,
		Uses: n.uses, Lister: logLister{log: n.log}, Waiter: n.waits, Activity: fixedActivity{}, Reports: n.reports, Reads: failingReads{n.access, n.fails}, Used: n.used, Now: n.clock.Now,
	}).Register(engine)
	n.srv = httptest.NewServer(engine)
	n.tb.Cleanup(n.srv.Close)
}

// reply is an answer, read whole.
type reply struct {
	status int
	header http.Header
	raw    string
	body   map[string]any
	list   []any // Of an answer that is one.
}

// field returns a text field of the answer.
func (r reply) field(name string) string {
	s, _ := r.body[name].(string)
	return s
}

// failure returns message code and field of an error answer.
func (r reply) failure() (code, field string) {
	list, _ := r.body["errors"].([]any)
	if len(list) == 0 {
		return r.field("errorCode"), ""
	}
	first, _ := list[0].(map[string]any)
	code, _ = first["message_code"].(string)
	field, _ = first["details"].(string)
	return code, field
}

// call sends body (JSON, unless it is a string) with key as the bearer.
func (n *node) call(key, method, path string, body any, headers ...string) reply {
	n.tb.Helper()
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	default:
		data, err := json.Marshal(b)
		if err != nil {
			n.tb.Fatal(err)
		}
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(n.tb.Context(), method, n.srv.URL+path, reader)
	if err != nil {
		n.tb.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return n.send(req)
}

func (n *node) send(req *http.Request) reply {
	n.tb.Helper()
	resp, err := n.srv.Client().Do(req)
	if err != nil {
		n.tb.Fatal(err)
	}
	defer func() { cleanup(n.tb, resp.Body.Close()) }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		n.tb.Fatal(err)
	}
	r := reply{status: resp.StatusCode, header: resp.Header, raw: string(data)}
	if len(data) > 0 {
		var into any = &r.body
		if data[0] == '[' {
			into = &r.list
		}
		if err := json.Unmarshal(data, into); err != nil {
			n.tb.Fatalf("answer is neither a JSON object nor a list: %s", data)
		}
	}
	return r
}

// must fails the test where the status is another.
func (n *node) must(status int, r reply) reply {
	n.tb.Helper()
	if r.status != status {
		n.tb.Fatalf("status %d, want %d: %s", r.status, status, r.raw)
	}
	return r
}

// createKey makes a key of the caller's own and returns id and value.
func (n *node) createKey(key string, iam domain.IAMID, name string) (id, value string) {
	n.tb.Helper()
	r := n.must(http.StatusCreated, n.call(key, "POST", "/v1/apikeys", map[string]any{"name": name, "iam_id": iam}))
	return r.field("id"), r.field("apikey")
}

// system is an order of keytrail itself.
func systemOrder() ingest.Order {
	return ingest.Order{
		Caller:    auth.NewCaller(domain.Initiator{IAMID: domain.SystemIAMID, Type: domain.ActorSystem}, auth.FixedStandings{}),
		RequestID: rand.Text(), CorrelationID: "test",
	}
}

// member adds a user with roles to the first account, and returns a key of that user.
// Only users make their keys, so the key is put into the log as the system's act.
func (n *node) member(iam domain.IAMID, roles ...domain.Role) string {
	n.tb.Helper()
	_, pos, err := n.commands.ChangeAccount(n.tb.Context(), systemOrder(), n.boot.Account, domain.AddMember{IAMID: iam, Name: "name of " + string(iam), Roles: roles})
	if err != nil {
		n.tb.Fatal(err)
	}
	if err := n.dirs.WaitFor(n.tb.Context(), pos); err != nil {
		n.tb.Fatal(err)
	}
	_, secret, _, err := n.commands.CreateKey(n.tb.Context(), systemOrder(), ingest.NewKey{Account: n.boot.Account, IAMID: iam, Name: "key of " + string(iam)})
	if err != nil {
		n.tb.Fatal(err)
	}
	return secret.Reveal()
}

// limit sets how many keys each identity of the first account may have.
func (n *node) limit(keys int) {
	n.tb.Helper()
	n.must(http.StatusOK, n.call(n.admin, "PUT", "/v1/accounts/"+string(n.boot.Account)+"/limits/identity", map[string]any{"apikeys_per_identity": keys}))
}

// events returns the log of streams with prefix.
func (n *node) events(prefix string) []domain.Recorded {
	n.tb.Helper()
	list, err := readLog(n.tb.Context(), n.log, prefix)
	if err != nil {
		n.tb.Fatal(err)
	}
	return list
}

// refused returns the recorded refusals.
func (n *node) refused() []domain.CommandRefused {
	n.tb.Helper()
	var out []domain.CommandRefused
	for _, rec := range n.events(domain.RefusedStreams) {
		out = append(out, rec.Event.(domain.CommandRefused))
	}
	return out
}
