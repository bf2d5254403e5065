package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/keytrail/internal/client"
)

const (
	// commandClients is how many clients give commands at the same time.
	commandClients = 32
	// keysPerClient is how many keys each of them has: nobody else changes those.
	keysPerClient = 20
)

// command is one request of a client; n counts them.
type command func(w *wire, client, n int) error

// commands measures durable commands over HTTP with all that follows the log running:
// updates with one client and with 32, and creations with 32.
func (b *bench) commands(ctx context.Context) error {
	iams, err := b.identities(ctx)
	if err != nil {
		return err
	}
	create := func(w *wire, client, n int) error {
		_, err := w.do(http.StatusCreated, http.MethodPost, "/v1/apikeys", "", newKey(iams[client], client, n))
		return err
	}
	keys, err := b.makeKeys(ctx, iams)
	if err != nil {
		return err
	}
	update := func(w *wire, client, n int) error {
		path := "/v1/apikeys/" + keys[client][n%keysPerClient]
		body := `{"name":"bench ` + strconv.Itoa(n) + " " + strconv.FormatInt(time.Now().UnixNano(), 36) + `"}`
		_, err := w.do(http.StatusOK, http.MethodPut, path, "If-Match: *\r\n", body)
		return err
	}
	for range b.rounds {
		if err := b.machine(ctx); err != nil {
			return err
		}
		for _, load := range []struct {
			name    string
			clients int
			goal    float64
			give    command
		}{
			{"key updates over HTTP, 1 client", 1, 0, update},
			{"key updates over HTTP, 32 clients", commandClients, 5000, update},
			{"key creations over HTTP, 32 clients", commandClients, 3000, create},
		} {
			if err := b.load(ctx, load.name, load.goal, load.clients, load.give); err != nil {
				return fmt.Errorf("%s: %w", load.name, err)
			}
		}
	}
	return nil
}

func newKey(iam string, client, n int) string {
	return `{"name":"bench-` + strconv.Itoa(client) + "-" + strconv.Itoa(n) + `","iam_id":"` + iam + `"}`
}

// identities makes a service ID for each client, which may have as many keys as come.
func (b *bench) identities(ctx context.Context) ([]string, error) {
	var me struct {
		Account string `json:"account_id"`
	}
	req := client.Request{Method: http.MethodGet, Path: "/v1/apikeys/details", Header: http.Header{"Iam-Apikey": {b.http.Key()}}}
	if err := b.http.JSON(ctx, req, nil, &me); err != nil {
		return nil, err
	}
	limits := client.Request{Method: http.MethodPut, Path: "/v1/accounts/" + me.Account + "/limits/identity"}
	if err := b.http.JSON(ctx, limits, map[string]int{"apikeys_per_identity": 100_000}, nil); err != nil {
		return nil, err
	}
	iams := make([]string, commandClients)
	for i := range iams {
		var id struct {
			IAMID string `json:"iam_id"`
		}
		body := map[string]string{"account_id": me.Account, "name": fmt.Sprint("bench ", i)}
		if err := b.http.JSON(ctx, client.Request{Method: http.MethodPost, Path: "/v1/serviceids"}, body, &id); err != nil {
			return nil, err
		}
		iams[i] = id.IAMID
	}
	return iams, nil
}

// makeKeys makes the keys that each client has for itself.
func (b *bench) makeKeys(ctx context.Context, iams []string) ([][]string, error) {
	keys := make([][]string, commandClients)
	g, ctx := errgroup.WithContext(ctx)
	for i := range keys {
		g.Go(func() error {
			return b.with(ctx, func(w *wire) error {
				for n := range keysPerClient {
					body, err := w.do(http.StatusCreated, http.MethodPost, "/v1/apikeys", "", newKey(iams[i], i, n))
					if err != nil {
						return err
					}
					var k struct{ ID string }
					if err := json.Unmarshal(body, &k); err != nil {
						return fmt.Errorf("read key: %w", err)
					}
					keys[i] = append(keys[i], k.ID)
				}
				return nil
			})
		})
	}
	return keys, g.Wait()
}

// with runs f with a connection of its own.
func (b *bench) with(ctx context.Context, f func(*wire) error) error {
	w, err := dial(ctx, strings.TrimPrefix(b.srv.Address, "http://"), b.http.Key())
	if err != nil {
		return err
	}
	if err := f(w); err != nil {
		_ = w.close() // The first fault is the one to tell.
		return err
	}
	return w.close()
}

// load lets clients give commands until the time is up, then waits until the tables hold
// them: what the next load meets is the same for all.
func (b *bench) load(ctx context.Context, name string, goal float64, clients int, give command) error {
	var mu sync.Mutex // Guards took.
	var took []time.Duration
	before, err := cpuOf(b.srv.PID())
	if err != nil {
		return err
	}
	began := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	for i := range clients {
		g.Go(func() error {
			return b.with(gctx, func(w *wire) error {
				var own []time.Duration
				for n := 0; time.Since(began) < b.seconds && gctx.Err() == nil; n++ {
					t0 := time.Now()
					if err := give(w, i, n); err != nil {
						return err
					}
					own = append(own, time.Since(t0))
				}
				mu.Lock()
				took = append(took, own...)
				mu.Unlock()
				return nil
			})
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	elapsed := time.Since(began)
	after, err := cpuOf(b.srv.PID())
	if err != nil {
		return err
	}
	b.found.add(figure{name: name, unit: "commands/s", goal: goal}, float64(len(took))/elapsed.Seconds())
	b.found.add(figure{name: name + ", p50", unit: "ms"}, ms(quantile(took, 0.5)))
	b.found.add(figure{name: name + ", p99", unit: "ms"}, ms(quantile(took, 0.99)))
	used := after.since(before)
	for _, part := range []struct {
		name string
		used time.Duration
	}{{"process", used.process}, {"engine", used.children}, {"load client", used.self}, {"three", used.process + used.children + used.self}} {
		b.found.add(figure{name: name + ", processor time of the " + part.name, unit: "µs each"}, float64(part.used.Microseconds())/float64(len(took)))
	}
	last, err := b.position(ctx)
	if err != nil {
		return err
	}
	t0 := time.Now()
	if err := b.waitFor(ctx, last); err != nil {
		return err
	}
	b.found.add(figure{name: name + ", tables complete after", unit: "ms"}, ms(time.Since(t0)))
	return nil
}
