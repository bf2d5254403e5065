package torture_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/keytrail/internal/auth"
	"example.com/keytrail/internal/client"
	"example.com/keytrail/internal/faults"
)

const (
	// revokeClients ask at the same time, half of them each node.
	revokeClients = 32
	// revokeHealthyMax is how long after the acknowledgement a request may still be accepted
	// while both nodes are well.
	revokeHealthyMax = 250 * time.Millisecond
	// revokeThink is how long a client waits between two requests: two cores serve them all.
	revokeThink = 15 * time.Millisecond
)

// pair is two API nodes on one event store. The second one's way to it can be spoiled.
type pair struct {
	t     *testing.T
	nodes [2]*node
	way   *faults.Proxy
	http  *http.Client
	admin string // The administrator's key.
	iam   string
}

func newPair(t *testing.T) *pair {
	t.Helper()
	if testing.Short() {
		t.Skip("starts the whole program; run without -short")
	}
	p := &pair{t: t, http: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 2 * revokeClients}}}
	var err error
	if p.way, err = faults.NewProxy(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // After the nodes have ended.
		if err := p.way.Close(); err != nil {
			t.Error(err)
		}
	})
	s := siteOf(t)
	t.Cleanup(p.http.CloseIdleConnections)
	es, err := s.addStore(t.Context(), "event store on esdb://", "eventstore", "--data", filepath.Join(s.dir, "es"), "--listen", "127.0.0.1:0", "--insecure")
	if err != nil {
		t.Fatal(err)
	}
	p.way.Target("tcp", es.link.Address())
	for i, log := range []string{es.link.Address(), p.way.Address()} {
		name := fmt.Sprint("api", i)
		p.nodes[i], err = s.addNode(t.Context(), name, filepath.Join(s.dir, name), "--roles", "api", "--keystore", s.data,
			"--eventstore", fmt.Sprintf("esdb://%s?tls=false", log), "--clickhouse", "http://keytrail:none@127.0.0.1:1/")
		if err != nil {
			t.Fatal(err)
		}
	}
	p.admin = p.nodes[0].past().Key()
	var accounts struct {
		Accounts []struct {
			Owner string `json:"owner_iam_id"`
		}
	}
	p.order(http.MethodGet, "/v1/accounts", nil, &accounts)
	p.iam = accounts.Accounts[0].Owner
	return p
}

// order gives a command to the first node and returns when it was acknowledged.
func (p *pair) order(method, path string, in, out any) time.Time {
	p.t.Helper()
	if err := p.nodes[0].past().JSON(p.t.Context(), client.Request{Method: method, Path: path}, in, out); err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	return time.Now()
}

// shown is a key with a session, and its token.
type shown struct{ id, value, token, session, service string }

// show makes a key, of a service ID if service says so, and signs in with it.
func (p *pair) show(name string, service bool) shown {
	p.t.Helper()
	iam, s := p.iam, shown{}
	if service {
		var id struct {
			ID  string `json:"id"`
			IAM string `json:"iam_id"`
		}
		p.order(http.MethodPost, "/v1/serviceids", map[string]any{"name": name}, &id)
		iam, s.service = id.IAM, id.ID
	}
	var key struct {
		ID     string `json:"id"`
		APIKey string `json:"apikey"`
	}
	p.order(http.MethodPost, "/v1/apikeys", map[string]any{"name": name, "iam_id": iam, "support_sessions": !service}, &key)
	s.id, s.value = key.ID, key.APIKey
	var in struct {
		Token   string `json:"access_token"`
		Session string `json:"session_id"`
	}
	form := url.Values{"grant_type": {"urn:ibm:params:oauth:grant-type:apikey"}, "apikey": {s.value}}
	if status, err := p.send(p.nodes[0], "/identity/token", "", form, &in); err != nil || status != http.StatusOK {
		p.t.Fatalf("sign in: %d, %v", status, err)
	}
	s.token, s.session = in.Token, in.Session
	return s
}

// send posts a form, or JSON if it is no form, or gets where there is nothing to post.
func (p *pair) send(n *node, path, credential string, body, out any) (int, error) {
	method, kind, text := http.MethodPost, "application/json", ""
	switch b := body.(type) {
	case nil:
		method = http.MethodGet
	case url.Values:
		kind, text = "application/x-www-form-urlencoded", b.Encode()
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			return 0, err
		}
		text = string(encoded)
	}
	n.mu.Lock()
	address := n.srv.Address
	n.mu.Unlock()
	req, err := http.NewRequestWithContext(context.Background(), method, address+path, strings.NewReader(text))
	if err != nil {
		return 0, err
	}
	if credential != "" {
		req.Header.Set("Authorization", "Bearer "+credential)
	}
	req.Header.Set("Content-Type", kind)
	resp, err := p.http.Do(req)
	if err != nil {
		return 0, err
	}
	answer, err := io.ReadAll(resp.Body)
	err = errors.Join(err, resp.Body.Close())
	if err == nil && out != nil && resp.StatusCode == http.StatusOK {
		err = json.Unmarshal(answer, out)
	}
	return resp.StatusCode, err
}

// accepts asks one node in one way whether s is still good.
func (p *pair) accepts(n *node, way int, s shown) (bool, int, error) {
	switch way {
	case 0:
		var v struct{ Valid bool }
		status, err := p.send(n, "/v1/apikeys/verify", p.admin, map[string]string{"apikey": s.value}, &v)
		return v.Valid, status, err
	case 1:
		var v struct{ Active bool }
		status, err := p.send(n, "/identity/introspect", p.admin, url.Values{"token": {s.token}}, &v)
		return v.Active, status, err
	default:
		status, err := p.send(n, "/v1/accounts", s.token, nil, nil)
		return status == http.StatusOK, status, err
	}
}

// lasted is how the acceptances ended: when the last one began and was answered, by way.
type lasted struct {
	began, answered [3]time.Time
	accepted        int
	others          map[int]int // Answers that were no acceptance, by status.
}

// latest returns the latest of times.
func latest(times [3]time.Time) time.Time {
	out := times[0]
	for _, t := range times[1:] {
		if t.After(out) {
			out = t
		}
	}
	return out
}

// watch has all clients ask until stop is closed. Ways before from are left out.
func (p *pair) watch(s shown, from int, nodes []*node, stop <-chan struct{}) *lasted {
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		out = &lasted{others: map[int]int{}}
	)
	for i := range revokeClients {
		n, way := nodes[i%len(nodes)], from+(i/len(nodes))%(3-from)
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(revokeThink):
				}
				began := time.Now()
				ok, status, err := p.accepts(n, way, s)
				answered := time.Now()
				mu.Lock()
				switch {
				case ok && err == nil:
					out.accepted++
					if began.After(out.began[way]) {
						out.began[way] = began
					}
					out.answered[way] = answered
				default:
					out.others[status]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return out
}

// during runs act while all clients ask, and some time before and after, then mend, so that
// whatever still waits for the log gets its answer. act returns when what it ordered was
// acknowledged.
func (p *pair) during(s shown, from int, nodes []*node, after time.Duration, act func() time.Time, mend func() error) (*lasted, time.Time) {
	p.t.Helper()
	stop, done := make(chan struct{}), make(chan *lasted, 1)
	go func() { done <- p.watch(s, from, nodes, stop) }()
	pause(200 * time.Millisecond)
	at := act()
	pause(after)
	close(stop)
	if err := mend(); err != nil {
		p.t.Fatal(err)
	}
	return <-done, at
}

// well waits until every way accepts s on every node.
func (p *pair) well(s shown, from int) {
	p.t.Helper()
	for _, n := range p.nodes {
		for way := from; way < 3; way++ {
			deadline := time.After(startMax)
			for {
				ok, status, err := p.accepts(n, way, s)
				if ok && err == nil {
					break
				}
				select {
				case <-deadline:
					p.t.Fatalf("%s does not accept a good key in way %d: %d %v", n.name, way, status, err)
				case <-time.After(20 * time.Millisecond):
				}
			}
		}
	}
}

// refused fails the test where anything still accepts s.
func (p *pair) refused(name string, s shown, from int) {
	p.t.Helper()
	for _, n := range p.nodes {
		for way := from; way < 3; way++ {
			if ok, _, err := p.accepts(n, way, s); ok || err != nil {
				p.t.Errorf("%s: %s still accepts it in way %d (%v)", name, n.name, way, err)
			}
		}
	}
}

// TestWhatIsRevokedIsRefusedOnEveryNode while both are well: verification, introspection and
// every call, by 32 clients on two nodes, for each way in which a credential ends.
func TestWhatIsRevokedIsRefusedOnEveryNode(t *testing.T) {
	p := newPair(t)
	var most, mostAnswered time.Duration
	rounds := int(setting(t, "KEYTRAIL_TORTURE_REVOKE_ROUNDS", 1))
	for _, end := range []struct {
		name    string
		service bool
		from    int // The first way that it ends.
		order   func(s shown) time.Time
	}{
		{name: "key disabled", order: func(s shown) time.Time { return p.order(http.MethodPost, "/v1/apikeys/"+s.id+"/disable", nil, nil) }},
		{name: "key deleted", order: func(s shown) time.Time { return p.order(http.MethodDelete, "/v1/apikeys/"+s.id, nil, nil) }},
		{name: "service ID deleted", service: true, order: func(s shown) time.Time { return p.order(http.MethodDelete, "/v1/serviceids/"+s.service, nil, nil) }},
		{name: "session revoked", from: 1, order: func(s shown) time.Time { return p.order(http.MethodDelete, "/v1/sessions/"+s.session, nil, nil) }},
	} {
		for i := range rounds {
			name := fmt.Sprint(end.name, ", round ", i)
			s := p.show(name, end.service)
			p.well(s, 0)
			got, at := p.during(s, end.from, p.nodes[:], 2*revokeHealthyMax, func() time.Time { return end.order(s) }, func() error { return nil })
			began, answered := latest(got.began).Sub(at), latest(got.answered).Sub(at)
			t.Logf("%s: after the acknowledgement the last acceptance began at %v and was answered at %v (%d accepted, others %v)",
				name, began.Round(time.Millisecond), answered.Round(time.Millisecond), got.accepted, got.others)
			most, mostAnswered = max(most, began), max(mostAnswered, answered)
			if began > revokeHealthyMax || got.accepted == 0 {
				t.Errorf("%s: accepted %v after it was acknowledged, %d in all", name, began, got.accepted)
			}
			p.refused(name, s, end.from)
			if end.name != "service ID deleted" && end.name != "key deleted" {
				p.order(http.MethodDelete, "/v1/apikeys/"+s.id, nil, nil)
			}
		}
	}
	t.Logf("at most: began %v, answered %v after the acknowledgement", most.Round(time.Millisecond), mostAnswered.Round(time.Millisecond))
}

// TestWhatIsRevokedElsewhereIsRefusedByANodeThatCannotKnow: the second node is cut off from
// the log, stopped, or its clock jumps. Nothing that was asked later than the bound after the
// acknowledgement is accepted, by whatever way, and afterwards the node knows.
func TestWhatIsRevokedElsewhereIsRefusedByANodeThatCannotKnow(t *testing.T) {
	p := newPair(t)
	second := p.nodes[1]
	link := func(l faults.Link) func() error { return func() error { p.way.Set(l); return nil } }
	clock := func(d time.Duration) func() error { return func() error { return second.clock.Set(d) } }
	signal := func(sig syscall.Signal) func() error { return func() error { return second.srv.Signal(sig) } }
	mended := func() error { p.way.Set(faults.Link{}); p.way.Cut(); return nil }
	for _, row := range []struct {
		name        string
		spoil, mend func() error
		unavailable bool // The node must have said that it does not know.
	}{
		{name: "the log's answers are lost", spoil: link(faults.Link{Mute: true}), mend: mended, unavailable: true},
		{name: "cut off from the log", spoil: link(faults.Link{Deaf: true, Mute: true}), mend: mended, unavailable: true},
		{name: "the log is slow", spoil: link(faults.Link{Delay: 3 * time.Second}), mend: mended, unavailable: true},
		{name: "stopped", spoil: signal(syscall.SIGSTOP), mend: signal(syscall.SIGCONT)},
		{name: "its clock jumps back a day", spoil: clock(-24 * time.Hour), mend: clock(0)},
		{name: "its clock jumps forward a day", spoil: clock(24 * time.Hour), mend: clock(0)},
	} {
		s := p.show(row.name, false)
		p.well(s, 0)
		got, at := p.during(s, 0, []*node{second}, 2*auth.FreshnessBound, func() time.Time {
			if err := row.spoil(); err != nil {
				t.Fatal(err)
			}
			return p.order(http.MethodPost, "/v1/apikeys/"+s.id+"/disable", nil, nil)
		}, row.mend)
		began, answered := latest(got.began).Sub(at), latest(got.answered).Sub(at)
		t.Logf("%s: after the acknowledgement the last acceptance began at %v and was answered at %v (%d accepted, others %v)",
			row.name, began.Round(time.Millisecond), answered.Round(time.Millisecond), got.accepted, got.others)
		if began > auth.FreshnessBound || got.accepted == 0 || row.unavailable && got.others[http.StatusServiceUnavailable] == 0 {
			t.Errorf("%s: accepted %v after it was acknowledged, others %v", row.name, began, got.others)
		}
		good := p.show("after "+row.name, false)
		p.well(good, 0)
		p.refused(row.name, s, 0)
		for _, id := range []string{s.id, good.id} {
			p.order(http.MethodDelete, "/v1/apikeys/"+id, nil, nil)
		}
	}
}
