package torture_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/keytrail/internal/client"
	"example.com/keytrail/internal/faults"
)

// givesUpAfter is when the script's client hangs up on a request that is not answered.
const givesUpAfter = 400 * time.Millisecond

// TestEachAppendOfAScriptMayFailOrPersistUnseen runs one script of commands, sign-ins,
// uploads and imports again and again. In each run one append, the next one in turn, has
// one of the bad fates; its client repeats what it may repeat. In the end every append had
// every fate, and everything that was acknowledged is there once.
func TestEachAppendOfAScriptMayFailOrPersistUnseen(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the whole program; run without -short")
	}
	seed := uint64(setting(t, "KEYTRAIL_TORTURE_SEED", time.Now().UnixNano()))
	t.Logf("KEYTRAIL_TORTURE_SEED=%d", seed)
	e, relay := newScripted(t, seed)
	defer e.finish()
	s := &script{episode: e, appends: &counter{relay: relay, at: -1}}
	s.run(t.Context(), 0) // What happens once only: accounts that the import finds.
	s.run(t.Context(), 1)
	each := s.appends.seen
	if t.Failed() || each < 12 {
		t.Fatalf("%s: a run without faults has %d appends, want at least 12", e.where, each)
	}
	runs := 1
	fates := []faults.Fate{faults.Fail, faults.FailStored, faults.Hang, faults.HangStored}
	rounds := len(fates)
	if setting(t, "KEYTRAIL_TORTURE_KILLS", 0) == 0 {
		rounds = 1 // The short form gives each append one fate, the next append the next.
	}
	for round := range rounds {
		before := e.book.snapshot()
		for at := range each {
			runs++
			s.appends.next(at, fates[(round+at)%len(fates)])
			s.run(t.Context(), runs)
			if !s.appends.met {
				t.Errorf("%s: run %d: append %d was not met", e.where, runs, at)
			}
			if t.Failed() {
				return
			}
		}
		name := "each append fails, or fails but persists"
		if !e.check(t.Context(), fmt.Sprintf("%s runs to %d (%s)", e.where, runs, name), fault{name: name}, before) {
			return
		}
	}
	e.total.times(each)
	e.total.print(t, seed)
}

// newScripted starts an event store, the relay before it, and a server.
func newScripted(t *testing.T, seed uint64) (*episode, *faults.Relay) {
	t.Helper()
	s, err := newSite()
	if err != nil {
		t.Fatal(err)
	}
	e := &episode{site: s, t: t, rng: rand.New(rand.NewPCG(seed, 0)), book: newBook(), where: fmt.Sprintf("KEYTRAIL_TORTURE_SEED=%d", seed), total: newTable()}
	var relay *faults.Relay
	err = func() error {
		es, err := s.addStore(t.Context(), "event store on esdb://", "eventstore", "--data", filepath.Join(s.dir, "es"), "--listen", "127.0.0.1:0", "--insecure")
		if err != nil {
			return err
		}
		if relay, err = faults.NewRelay(t.Context(), es.link.Address()); err != nil {
			return err
		}
		_, err = s.addNode(t.Context(), "server", s.data, "--eventstore", fmt.Sprintf("esdb://%s?tls=false", relay.Address()))
		return err
	}()
	if err != nil {
		e.finish()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := relay.Close(); err != nil {
			t.Error(err)
		}
	})
	e.w = &writers{book: e.book, nodes: e.clients}
	if err := e.w.whoAmI(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e, relay
}

// counter counts the appends of evidence that a script causes, and gives one its fate.
type counter struct {
	relay *faults.Relay

	mu   sync.Mutex // Guards all below.
	seen int
	at   int // Which one has the fate; -1 for none.
	fate faults.Fate
	met  bool
}

// next begins a run in which append number at has that fate.
func (c *counter) next(at int, fate faults.Fate) {
	c.mu.Lock()
	c.seen, c.at, c.fate, c.met = 0, at, fate, false
	c.mu.Unlock()
	c.relay.Decide(c.decide)
}

// decide counts what requests cause: not the work of projections and detector, which come
// when they come.
func (c *counter) decide(first []byte) faults.Fate {
	mine := false
	for _, prefix := range []string{"kt.apikey-", "kt.account-", "kt.serviceid-", "kt.keyslots-", "kt.usage-", "kt.refused-"} {
		mine = mine || bytes.Contains(first, []byte(prefix))
	}
	if !mine {
		return faults.Pass
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.seen
	c.seen++
	if n != c.at || c.met {
		return faults.Pass
	}
	c.met = true
	return c.fate
}

// script is what a run does, one request after the other.
type script struct {
	*episode
	appends *counter
}

// run carries out the script; n makes its ids.
func (s *script) run(ctx context.Context, n int) {
	s.t.Helper()
	if n < 2 {
		s.appends.next(-1, faults.Pass)
	}
	k := s.create(ctx, n)
	id := func(what string) string { return fmt.Sprintf("c-%d-%s", n, what) }
	s.rename(ctx, id("rename"), k)
	path := "/v1/apikeys/" + k.ID
	s.change(ctx, id("lock"), http.MethodPost, path+"/lock")
	s.change(ctx, id("unlock"), http.MethodDelete, path+"/lock")
	s.change(ctx, id("disable"), http.MethodPost, path+"/disable")
	s.change(ctx, id("enable"), http.MethodDelete, path+"/disable")
	s.refused(ctx, fmt.Sprintf("x-%d", n))
	s.upload(ctx, usageBatch(n, 3, 0))
	s.upload(ctx, usageBatch(n, 500, 2400)) // Takes several appends.
	s.upload(ctx, importBatch(n))
	s.signIn(ctx, n)
	s.change(ctx, id("delete"), http.MethodDelete, path)
}

// once sends one request, hanging up on it if it is not answered. Nobody else has asked
// for anything meanwhile, so what hangs now is this request's.
func (s *script) once(ctx context.Context, r client.Request, in, out any) int {
	if s.appends.hangs() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, givesUpAfter)
		defer s.appends.relay.Release()
		defer cancel()
	}
	err := s.nodes[0].api.JSON(ctx, r, in, out)
	if err == nil {
		s.book.answer(http.StatusOK, "")
		return http.StatusOK
	}
	e, ok := errors.AsType[*client.Error](err)
	if !ok {
		s.book.answer(0, "")
		return 0
	}
	s.book.answer(e.Status, e.Message)
	if e.Status != http.StatusServiceUnavailable && e.Status != http.StatusNotFound {
		s.t.Errorf("%s: %s %s: %v", s.where, r.Method, r.Path, err)
	}
	return e.Status
}

func (c *counter) hangs() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.met && (c.fate == faults.Hang || c.fate == faults.HangStored)
}

// until repeats a request that a repeat does not change, until it is answered well.
func (s *script) until(ctx context.Context, k kind, ids []string, r func() client.Request, in, out any, good ...int) {
	s.t.Helper()
	s.book.send(k, ids...)
	for range 50 {
		status := s.once(ctx, r(), in, out)
		if status == http.StatusOK || slices.Contains(good, status) {
			s.book.ack(k, ids...)
			return
		}
		pause(5 * time.Millisecond)
	}
	s.t.Errorf("%s: %v is never answered well", s.where, ids)
}

func (s *script) change(ctx context.Context, id, method, path string) {
	s.t.Helper()
	good := []int{}
	if strings.HasSuffix(id, "delete") {
		good = append(good, http.StatusNotFound)
	}
	s.until(ctx, command, []string{id}, func() client.Request { return client.Request{Method: method, Path: path, Header: header(id)} }, nil, nil, good...)
}

// create tries under another id when the outcome is not known.
func (s *script) create(ctx context.Context, n int) key {
	s.t.Helper()
	for try := range 50 {
		var k key
		id := fmt.Sprintf("c-%d-create-%d", n, try)
		s.book.send(command, id)
		if s.once(ctx, client.Request{Method: http.MethodPost, Path: "/v1/apikeys", Header: header(id)}, map[string]string{"name": id, "iam_id": s.w.iamID}, &k) == http.StatusOK {
			s.book.ack(command, id)
			return k
		}
	}
	s.t.Errorf("%s: no key can be made", s.where)
	return key{}
}

// rename repeats itself under the same name, which changes nothing.
func (s *script) rename(ctx context.Context, id string, k key) {
	s.t.Helper()
	s.until(ctx, command, []string{id}, func() client.Request {
		h := header(id)
		h.Set("If-Match", "*")
		return client.Request{Method: http.MethodPut, Path: "/v1/apikeys/" + k.ID, Header: h}
	}, map[string]string{"name": id}, nil)
}

func (s *script) refused(ctx context.Context, id string) {
	for try := range 50 {
		id := fmt.Sprintf("%s-%d", id, try)
		s.book.send(refusal, id)
		if s.once(ctx, client.Request{Method: http.MethodDelete, Path: "/v1/apikeys/ApiKey-" + id, Header: header(id)}, nil, nil) == http.StatusNotFound {
			s.book.ack(refusal, id)
			return
		}
	}
	s.t.Errorf("%s: nothing is refused", s.where)
}

func (s *script) signIn(ctx context.Context, n int) {
	for try := range 50 {
		id := fmt.Sprintf("l-%d-%d", n, try)
		s.book.send(login, id)
		form := "grant_type=urn%3Aibm%3Aparams%3Aoauth%3Agrant-type%3Aapikey&apikey=" + s.nodes[0].api.Key()
		h := header(id)
		h.Set("Content-Type", "application/x-www-form-urlencoded")
		if s.once(ctx, client.Request{Method: http.MethodPost, Path: "/identity/token", Header: h, Body: strings.NewReader(form)}, nil, nil) == http.StatusOK {
			s.book.ack(login, id)
			return
		}
	}
	s.t.Errorf("%s: nobody can sign in", s.where)
}

func (s *script) upload(ctx context.Context, b batch) {
	s.t.Helper()
	s.until(ctx, b.kind, b.ids, func() client.Request {
		h := http.Header{"Keytrail-Batch-Id": {b.id}, "Content-Type": {"application/x-ndjson"}}
		return client.Request{Method: http.MethodPost, Path: b.path, Header: h, Body: bytes.NewReader(b.body), Length: int64(len(b.body))}
	}, nil, nil)
}

// usageBatch holds lines of about so many bytes that cannot be compressed.
func usageBatch(n, lines, agentBytes int) batch {
	rng := rand.New(rand.NewPCG(uint64(n), uint64(lines)))
	b := batch{kind: use, path: "/v1/usage", id: fmt.Sprintf("u-%d-%d", n, lines)}
	var body bytes.Buffer
	for i := range lines {
		id := fmt.Sprintf("u-%d-%d-%d", n, lines, i)
		b.ids = append(b.ids, id)
		fmt.Fprintf(&body, `{"id":"%s","time":"2026-04-01T01:10:00Z","key_id":"k","action":"thing.read","outcome":"success","user_agent":"a%s"}`+"\n", id, randomText(rng, agentBytes))
	}
	b.body = body.Bytes()
	return b
}

// importBatch holds records and, for new keys, facts about them.
func importBatch(n int) batch {
	b := batch{kind: imp, path: "/v1/imports/cloudtrail", id: fmt.Sprintf("i-%d", n)}
	var lines []string
	for i := range 3 {
		id := fmt.Sprintf("i-%d-%d", n, i)
		b.ids = append(b.ids, id)
		lines = append(lines, fmt.Sprintf(`{"eventVersion":"1.08","userIdentity":{"type":"IAMUser","arn":"arn:aws:iam::111122223333:user/u","accountId":"111122223333","accessKeyId":"AKIASCRIPT%06d%d"},"eventTime":"2026-03-01T01:00:00Z","eventSource":"s3.amazonaws.com","eventName":"GetObject","awsRegion":"eu-west-1","sourceIPAddress":"192.0.2.1","userAgent":"aws-cli","requestID":"r","eventID":"%s","readOnly":true,"recipientAccountId":"111122223333"}`, n, i%2, id))
	}
	b.body = []byte(strings.Join(lines, "\n"))
	return b
}

// print writes the table where it can be copied from.
func (t *table) print(tb testing.TB, seed uint64) {
	tb.Helper()
	if _, err := fmt.Fprintf(os.Stdout, "\nseed %d\n\n%s\n", seed, t); err != nil {
		tb.Error(err)
	}
}

// times says that one step of these rows stands for so many runs.
func (t *table) times(runs int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.rows {
		c.steps *= runs
	}
}
