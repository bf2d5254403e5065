package torture_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"example.com/keytrail/internal/client"
)

const (
	// requestMax is how long a writer waits for an answer before it calls the outcome
	// unknown, as clients do.
	requestMax = 15 * time.Second
	// insistMax is how long a batch may take until it is acknowledged, faults included.
	insistMax = 4 * time.Minute
	// retryAfter is how soon a writer asks again.
	retryAfter = 50 * time.Millisecond
)

// writers write to one or more nodes, which share everything.
type writers struct {
	book  *book
	nodes func() []*client.Client // Those that clients may use now.
	iamID string
	// gentle makes writers write less: while everything is checked, they need not hurry.
	gentle atomic.Bool
}

// rest lets the next write wait.
func (w *writers) rest(rng *rand.Rand, most time.Duration) {
	if w.gentle.Load() {
		most *= 8
	}
	pause(time.Duration(rng.Int64N(int64(most))))
}

// any returns one of the nodes.
func (w *writers) any(rng *rand.Rand) *client.Client {
	nodes := w.nodes()
	return nodes[rng.IntN(len(nodes))]
}

// ask sends one request and says how it was answered; status 0 means that nobody knows.
func (w *writers) ask(ctx context.Context, c *client.Client, r client.Request, in, out any) (int, error) {
	// Not cancelled with ctx: what was sent is waited for, so that it is counted.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestMax)
	defer cancel()
	err := c.JSON(ctx, r, in, out)
	if err == nil {
		w.book.answer(http.StatusOK, "")
		return http.StatusOK, nil
	}
	e, ok := errors.AsType[*client.Error](err)
	if !ok {
		w.book.answer(0, "")
		return 0, err
	}
	w.book.answer(e.Status, e.Message)
	switch {
	case e.Status == http.StatusServiceUnavailable && e.RetryAfter == 0:
		w.book.strange("%s %s: 503 without Retry-After: %v", r.Method, r.Path, e)
	case e.Status >= 500 && e.Status != http.StatusServiceUnavailable && e.Status != http.StatusInsufficientStorage:
		w.book.strange("%s %s: an error that says nothing: %v", r.Method, r.Path, e)
	}
	return e.Status, err
}

// open reports whether an answer leaves open if the request was carried out.
func open(status int) bool { return status == 0 || status >= 500 }

// batch is an upload of records.
type batch struct {
	kind kind
	path string
	id   string
	ids  []string // Of the records.
	body []byte
}

func (w *writers) upload(ctx context.Context, c *client.Client, b batch) int {
	h := http.Header{"Keytrail-Batch-Id": {b.id}, "Content-Type": {"application/x-ndjson"}}
	var out struct {
		Rejected []struct{ Error string } `json:"rejected"`
	}
	status, err := w.ask(ctx, c, client.Request{Method: http.MethodPost, Path: b.path, Header: h, Body: bytes.NewReader(b.body), Length: int64(len(b.body))}, nil, &out)
	switch {
	case err == nil && len(out.Rejected) > 0:
		w.book.strange("%s rejected a good line of %s: %s", b.path, b.id, out.Rejected[0].Error)
	case err != nil && !open(status):
		w.book.strange("%s refused batch %s: %v", b.path, b.id, err)
	}
	return status
}

// insist sends the same bytes under the same batch id until they are acknowledged, now
// and then twice at once.
func (w *writers) insist(ctx context.Context, rng *rand.Rand, b batch) {
	w.book.send(b.kind, b.ids...)
	began := time.Now()
	for time.Since(began) < insistMax {
		status := make(chan int, 2)
		var wg sync.WaitGroup
		for range 1 + rng.IntN(8)/7 {
			c := w.any(rng)
			wg.Go(func() { status <- w.upload(ctx, c, b) })
		}
		wg.Wait()
		close(status)
		acked, refused := false, false
		for s := range status {
			acked = acked || s == http.StatusOK
			refused = refused || !open(s) && s != http.StatusOK
		}
		if acked {
			w.book.ack(b.kind, b.ids...)
			return
		}
		if refused {
			return // Noted as strange.
		}
		pause(retryAfter)
	}
	w.book.strange("batch %s was not acknowledged within %v", b.id, insistMax)
}

// deliver sends batches as an unreliable queue does: some late, some twice.
func (w *writers) deliver(ctx context.Context, rng *rand.Rand, next func(n int) batch) {
	var past, late []batch
	for n := 0; ctx.Err() == nil; n++ {
		b := next(n)
		if rng.IntN(6) == 0 {
			late = append(late, b)
			continue
		}
		w.insist(ctx, rng, b)
		past = append(past, b)
		for _, b := range late {
			w.insist(ctx, rng, b)
		}
		late = nil
		if rng.IntN(6) == 0 { // Again, long after it was acknowledged.
			w.insist(ctx, rng, past[rng.IntN(len(past))])
		}
		if rng.IntN(20) == 0 {
			w.impersonate(ctx, rng, past[rng.IntN(len(past))])
		}
		w.rest(rng, 200*time.Millisecond)
	}
	for _, b := range late {
		w.insist(ctx, rng, b)
	}
}

// impersonate sends other bytes under the id of a batch that was acknowledged: they must
// be refused.
func (w *writers) impersonate(ctx context.Context, rng *rand.Rand, b batch) {
	h := http.Header{"Keytrail-Batch-Id": {b.id}, "Content-Type": {"application/x-ndjson"}}
	body := append(bytes.Clone(b.body), '\n', '\n')
	status, err := w.ask(ctx, w.any(rng), client.Request{Method: http.MethodPost, Path: b.path, Header: h, Body: bytes.NewReader(body), Length: int64(len(body))}, nil, nil)
	if !open(status) && status != http.StatusConflict {
		w.book.strange("batch %s with other bytes was answered %d: %v", b.id, status, err)
	}
}

// importing sends CloudTrail records; some of a batch were in the batch before it, as real
// sources deliver them.
func (w *writers) importing(ctx context.Context, rng *rand.Rand) {
	who := rng.Uint32()
	var lastIDs, lastLines []string
	w.deliver(ctx, rng, func(n int) batch {
		b := batch{kind: imp, path: "/v1/imports/cloudtrail", id: fmt.Sprintf("i-%d-%d", who, n)}
		var lines []string
		for i := range 6 {
			id := fmt.Sprintf("i-%d-%d-%d", who, n, i)
			b.ids = append(b.ids, id)
			lines = append(lines, fmt.Sprintf(`{"eventVersion":"1.08","userIdentity":{"type":"IAMUser","arn":"arn:aws:iam::111122223333:user/u%d","accountId":"111122223333","accessKeyId":"AKIATORTURE%06d"},"eventTime":"2026-03-%02dT%02d:00:00Z","eventSource":"s3.amazonaws.com","eventName":"GetObject","awsRegion":"eu-west-1","sourceIPAddress":"192.0.2.%d","userAgent":"aws-cli","requestID":"r","eventID":"%s","readOnly":true,"recipientAccountId":"111122223333"}`,
				rng.IntN(9), rng.IntN(20), 1+rng.IntN(3), rng.IntN(4), rng.IntN(250), id))
		}
		b.body = []byte(strings.Join(append(append([]string{}, lines...), lastLines...), "\n"))
		fresh := b.ids[:3:3]
		b.ids = append(b.ids, lastIDs...)
		lastIDs, lastLines = fresh, lines[:3]
		return b
	})
}

// using sends batches to the usage intake; now and then one that takes several events.
func (w *writers) using(ctx context.Context, rng *rand.Rand) {
	who := rng.Uint32()
	w.deliver(ctx, rng, func(n int) batch {
		b := batch{kind: use, path: "/v1/usage", id: fmt.Sprintf("u-%d-%d", who, n)}
		size, agent := 6, "agent"
		if rng.IntN(100) == 0 {
			size = 600
		}
		var body bytes.Buffer
		for i := range size {
			if size > 6 { // Too random to be compressed: the batch does not fit into one event.
				agent = fmt.Sprintf("%0512x", rng.Uint64()) + randomText(rng, 1500)
			}
			id := fmt.Sprintf("u-%d-%d-%d", who, n, i)
			b.ids = append(b.ids, id)
			fmt.Fprintf(&body, `{"id":"%s","time":"2026-04-%02dT%02d:10:00Z","key_id":"k%d","action":"thing.read","outcome":"success","source_ip":"198.51.100.%d","user_agent":"%s"}`+"\n",
				id, 1+rng.IntN(3), rng.IntN(4), rng.IntN(20), rng.IntN(250), agent)
		}
		b.body = body.Bytes()
		return b
	})
}

func randomText(rng *rand.Rand, n int) string {
	var b strings.Builder
	for b.Len() < n {
		fmt.Fprintf(&b, "%016x", rng.Uint64())
	}
	return b.String()
}

// signingIn asks for tokens: each that is answered is a use that must be there.
func (w *writers) signingIn(ctx context.Context, rng *rand.Rand) {
	who := rng.Uint32()
	for n := 0; ctx.Err() == nil; n++ {
		id := fmt.Sprintf("l-%d-%d", who, n)
		w.book.send(login, id)
		if status, err := w.signIn(ctx, rng, id, nil); err == nil {
			w.book.ack(login, id)
		} else if !open(status) {
			w.book.strange("sign-in %s was refused: %v", id, err)
		}
		w.rest(rng, 250*time.Millisecond)
	}
}

func (w *writers) signIn(ctx context.Context, rng *rand.Rand, id string, out any) (int, error) {
	c := w.any(rng)
	form := url.Values{"grant_type": {"urn:ibm:params:oauth:grant-type:apikey"}, "apikey": {c.Key()}}.Encode()
	h := http.Header{"Transaction-Id": {id}, "Content-Type": {"application/x-www-form-urlencoded"}}
	return w.ask(ctx, c, client.Request{Method: http.MethodPost, Path: "/identity/token", Header: h, Body: strings.NewReader(form), Length: int64(len(form))}, nil, out)
}

// key is what an answer says of a key.
type key struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	EntityTag string `json:"entity_tag"`
	APIKey    string `json:"apikey"`
}

// commanding creates keys, changes and deletes them, each command with a correlation id of
// its own, each repeated until its outcome is known.
func (w *writers) commanding(ctx context.Context, rng *rand.Rand) {
	who := rng.Uint32()
	var k key
	for n := 0; ctx.Err() == nil; n++ {
		id := fmt.Sprintf("c-%d-%d", who, n)
		switch {
		case k.ID == "":
			k = w.create(ctx, rng, id)
		case rng.IntN(40) == 0:
			w.remove(ctx, rng, id, k)
			k = key{}
		case rng.IntN(20) == 0:
			w.refused(ctx, rng, fmt.Sprintf("x-%d-%d", who, n))
		default:
			k = w.rename(ctx, rng, id, k)
		}
		w.rest(rng, 120*time.Millisecond)
	}
}

func header(id string) http.Header { return http.Header{"Transaction-Id": {id}} }

// create is not repeated: a repeat would be another key.
func (w *writers) create(ctx context.Context, rng *rand.Rand, id string) key {
	var k key
	w.book.send(command, id)
	status, err := w.ask(ctx, w.any(rng), client.Request{Method: http.MethodPost, Path: "/v1/apikeys", Header: header(id)}, map[string]string{"name": id, "iam_id": w.iamID}, &k)
	switch {
	case err == nil:
		w.book.ack(command, id)
	case !open(status):
		w.book.strange("create %s was refused: %v", id, err)
	}
	return k
}

// rename insists, under the entity tag that it read: so a repeat, or a twin, changes
// nothing. It returns the key after the change, or none if it cannot go on.
func (w *writers) rename(ctx context.Context, rng *rand.Rand, id string, k key) key {
	w.book.send(command, id)
	began := time.Now()
	for time.Since(began) < insistMax {
		var wg sync.WaitGroup
		for range 1 + rng.IntN(8)/7 {
			c := w.any(rng)
			wg.Go(func() {
				h := header(id)
				h.Set("If-Match", k.EntityTag)
				status, err := w.ask(ctx, c, client.Request{Method: http.MethodPut, Path: "/v1/apikeys/" + k.ID, Header: h}, map[string]string{"name": id}, nil)
				if !open(status) && status != http.StatusOK && status != http.StatusConflict {
					w.book.strange("rename %s was refused: %v", id, err)
				}
			})
		}
		wg.Wait()
		var now key
		status, err := w.ask(ctx, w.any(rng), client.Request{Method: http.MethodGet, Path: "/v1/apikeys/" + k.ID, Header: http.Header{}}, nil, &now)
		switch {
		case err == nil && now.Name == id:
			w.book.ack(command, id)
			return now
		case err == nil && now.EntityTag != k.EntityTag:
			w.book.strange("key %s became %+v while only %s was asked for", k.ID, now, id)
			return key{}
		case err != nil && !open(status):
			w.book.strange("read of key %s: %v", k.ID, err)
			return key{}
		}
		pause(retryAfter)
	}
	w.book.strange("rename %s was not carried out within %v", id, insistMax)
	return key{}
}

// remove insists too: a second deletion changes nothing.
func (w *writers) remove(ctx context.Context, rng *rand.Rand, id string, k key) {
	w.book.send(command, id)
	began := time.Now()
	for time.Since(began) < insistMax {
		status, err := w.ask(ctx, w.any(rng), client.Request{Method: http.MethodDelete, Path: "/v1/apikeys/" + k.ID, Header: header(id)}, nil, nil)
		if status == http.StatusOK || status == http.StatusNotFound {
			w.book.ack(command, id)
			return
		}
		if !open(status) {
			w.book.strange("delete %s was refused: %v", id, err)
			return
		}
		pause(retryAfter)
	}
	w.book.strange("delete %s was not carried out within %v", id, insistMax)
}

// refused gives a command that must be refused; the refusal is on record before its
// answer.
func (w *writers) refused(ctx context.Context, rng *rand.Rand, id string) {
	w.book.send(refusal, id)
	status, err := w.ask(ctx, w.any(rng), client.Request{Method: http.MethodDelete, Path: "/v1/apikeys/ApiKey-" + id, Header: header(id)}, nil, nil)
	switch {
	case status == http.StatusNotFound:
		w.book.ack(refusal, id)
	case !open(status):
		w.book.strange("a command about no key was answered %d: %v", status, err)
	}
}

// whoAmI finds the identity that new keys are made for.
func (w *writers) whoAmI(ctx context.Context) error {
	c := w.nodes()[0]
	var k struct {
		IAMID   string `json:"iam_id"`
		Account string `json:"account_id"`
	}
	h := http.Header{"Iam-Apikey": {c.Key()}}
	if err := c.JSON(ctx, client.Request{Method: http.MethodGet, Path: "/v1/apikeys/details", Header: h}, nil, &k); err != nil {
		return fmt.Errorf("find the administrator: %w", err)
	}
	w.iamID = k.IAMID
	limits := client.Request{Method: http.MethodPut, Path: "/v1/accounts/" + k.Account + "/limits/identity"}
	if err := c.JSON(ctx, limits, map[string]int{"apikeys_per_identity": 100_000}, nil); err != nil {
		return fmt.Errorf("let the administrator have many keys: %w", err)
	}
	return nil
}

// all returns what every writer does; each runs until its context ends.
func (w *writers) all() []func(context.Context, *rand.Rand) {
	return []func(context.Context, *rand.Rand){w.importing, w.using, w.using, w.commanding, w.commanding, w.signingIn}
}
