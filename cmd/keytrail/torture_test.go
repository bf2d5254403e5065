package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.com/keytrail/internal/client"
	"example.com/keytrail/projections"
)

// tortureKillsDefault is how often the short form kills; KEYTRAIL_TORTURE_KILLS sets it.
const tortureKillsDefault = 30

// envInt reads a number from the environment.
func envInt(t *testing.T, name string, otherwise int64) int64 {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// torture writes while somebody kills, and keeps what was acknowledged.
type torture struct {
	*system
	seed uint64
	// api is the client of the server that is up now.
	api atomic.Pointer[client.Client]
	// mu guards acked and unknown: correlation ids of commands.
	mu             sync.Mutex
	acked, unknown []string
	sent           atomic.Int64 // Records acknowledged, import and usage together.
}

func TestNothingAcknowledgedIsLostOrDoubledUnderKills(t *testing.T) {
	kills := int(envInt(t, "KEYTRAIL_TORTURE_KILLS", tortureKillsDefault))
	seed := uint64(envInt(t, "KEYTRAIL_TORTURE_SEED", time.Now().UnixNano()))
	t.Logf("KEYTRAIL_TORTURE_SEED=%d", seed)
	tt := &torture{system: newSystem(t, "--listen", freeAddress(t)), seed: seed}
	tt.api.Store(tt.system.api)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for i, work := range []func(context.Context, *rand.Rand){tt.importing, tt.importing, tt.using, tt.commanding, tt.commanding} {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() { work(ctx, rng) })
	}
	rng := rand.New(rand.NewPCG(seed, 99))
	for n := range kills {
		tt.killOnce(rng, n)
	}
	cancel()
	wg.Wait()
	tt.judge(kills)
}

// freeAddress picks a free port, so that restarted servers keep their address.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return address
}

// killOnce lets the writers work for a moment, then kills the server or only its engine,
// and checks the tables once it is up again.
func (tt *torture) killOnce(rng *rand.Rand, n int) {
	tt.t.Helper()
	<-time.After(time.Duration(50+rng.IntN(1500)) * time.Millisecond)
	if rng.IntN(3) == 0 {
		if err := exec.Command("pkill", "-KILL", "-P", strconv.Itoa(tt.srv.PID())).Run(); err != nil {
			tt.t.Fatalf("kill %d: the engine: %v", n, err)
		}
	} else {
		if err := tt.srv.Kill(); err != nil {
			tt.t.Fatalf("kill %d: %v", n, err)
		}
		address := strings.TrimPrefix(tt.srv.Address, "http://")
		tt.start("--listen", address)
		tt.api.Store(tt.system.api)
	}
	up := time.Now()
	tt.verifiedOnceUp()
	tt.mu.Lock()
	commands := len(tt.acked)
	tt.mu.Unlock()
	tt.t.Logf("kill %d: %d records, %d commands so far, verified in %v", n, tt.sent.Load(), commands, time.Since(up))
	if tt.t.Failed() {
		tt.t.Fatalf("after kill %d", n)
	}
}

// verifiedOnceUp is verified, while the engine may still be starting.
func (tt *torture) verifiedOnceUp() {
	tt.t.Helper()
	for {
		var report projections.Report
		err := tt.post(http.MethodPost, verifyPath, nil, &report)
		if err == nil {
			if !report.OK() {
				tt.t.Errorf("the tables differ from the log: %+v", report)
			}
			return
		}
		if !gone(err) {
			tt.t.Fatalf("verify: %v", err)
		}
		<-time.After(100 * time.Millisecond)
	}
}

// gone reports whether err leaves open if the request was carried out: no answer, or the
// server's word that it does not know.
func gone(err error) bool {
	e, ok := errors.AsType[*client.Error](err)
	return !ok || e.Status >= 500
}

// insist sends the same bytes under the same batch id until they are acknowledged.
func (tt *torture) insist(ctx context.Context, path, batch string, body []byte, n int) {
	for {
		h := http.Header{"Keytrail-Batch-Id": {batch}, "Content-Type": {"application/x-ndjson"}}
		var out struct {
			Rejected []struct{ Error string } `json:"rejected"`
		}
		// Not cancelled with ctx: what was sent must be acknowledged before it is counted.
		err := tt.api.Load().JSON(context.WithoutCancel(ctx), client.Request{Method: http.MethodPost, Path: path, Header: h, Body: bytes.NewReader(body), Length: int64(len(body))}, nil, &out)
		switch {
		case err == nil && len(out.Rejected) == 0:
			tt.sent.Add(int64(n))
			<-time.After(200 * time.Millisecond) // Many small writes are more places to be killed at than few large ones.
			return
		case err == nil:
			tt.t.Errorf("%s rejected %s", path, out.Rejected[0].Error)
			return
		case !gone(err):
			tt.t.Errorf("%s refused %s: %v", path, batch, err)
			return
		}
		<-time.After(50 * time.Millisecond)
	}
}

// importing sends CloudTrail records; some of a batch were in the batch before it, as real
// sources deliver them.
func (tt *torture) importing(ctx context.Context, rng *rand.Rand) {
	who, last := rng.Uint32(), []string{}
	for batch := 0; ctx.Err() == nil; batch++ {
		var lines []string
		for i := range 20 {
			lines = append(lines, fmt.Sprintf(`{"eventVersion":"1.08","userIdentity":{"type":"IAMUser","arn":"arn:aws:iam::111122223333:user/u%d","accountId":"111122223333","accessKeyId":"AKIATORTURE%06d"},"eventTime":"2026-03-%02dT%02d:00:00Z","eventSource":"s3.amazonaws.com","eventName":"GetObject","awsRegion":"eu-west-1","sourceIPAddress":"192.0.2.%d","userAgent":"aws-cli","requestID":"r","eventID":"import-%d-%d-%d","readOnly":true,"recipientAccountId":"111122223333"}`,
				rng.IntN(9), rng.IntN(40), 1+rng.IntN(28), rng.IntN(24), rng.IntN(250), who, batch, i))
		}
		body := strings.Join(append(append([]string{}, lines...), last...), "\n")
		tt.insist(ctx, "/v1/imports/cloudtrail", fmt.Sprintf("import-%d-%d", who, batch), []byte(body), len(lines))
		last = lines[:10]
	}
}

// using sends batches to the usage intake.
func (tt *torture) using(ctx context.Context, rng *rand.Rand) {
	who := rng.Uint32()
	for batch := 0; ctx.Err() == nil; batch++ {
		var b bytes.Buffer
		for i := range 20 {
			fmt.Fprintf(&b, `{"id":"use-%d-%d-%d","time":"2026-04-%02dT%02d:10:00Z","key_id":"k%d","action":"thing.read","outcome":"success","source_ip":"198.51.100.%d"}`+"\n", who, batch, i, 1+rng.IntN(28), rng.IntN(24), rng.IntN(30), rng.IntN(250))
		}
		tt.insist(ctx, "/v1/usage", fmt.Sprintf("use-%d-%d", who, batch), b.Bytes(), 20)
	}
}

// commanding creates keys and changes them, each command with a correlation id of its own.
func (tt *torture) commanding(ctx context.Context, rng *rand.Rand) {
	who := rng.Uint32()
	var iam struct {
		IAMID string `json:"iam_id"`
	}
	h := http.Header{"Iam-Apikey": {tt.api.Load().Key()}}
	for tt.api.Load().JSON(ctx, client.Request{Method: http.MethodGet, Path: "/v1/apikeys/details", Header: h}, nil, &iam) != nil {
		if ctx.Err() != nil {
			return
		}
	}
	var key struct {
		ID string `json:"id"`
	}
	for n := 0; ctx.Err() == nil; n++ {
		id := fmt.Sprintf("torture-%d-%d", who, n)
		if n%40 == 0 || key.ID == "" {
			key.ID = ""
			tt.command(ctx, id, http.MethodPost, "/v1/apikeys", map[string]string{"name": id, "iam_id": iam.IAMID}, &key)
			continue
		}
		tt.command(ctx, id, http.MethodPut, "/v1/apikeys/"+key.ID, map[string]string{"name": id}, nil)
	}
}

func (tt *torture) command(ctx context.Context, id, method, path string, in, out any) {
	h := http.Header{"Transaction-Id": {id}, "If-Match": {"*"}}
	err := tt.api.Load().JSON(context.WithoutCancel(ctx), client.Request{Method: method, Path: path, Header: h}, in, out)
	<-time.After(50 * time.Millisecond)
	tt.mu.Lock()
	defer tt.mu.Unlock()
	switch {
	case err == nil:
		tt.acked = append(tt.acked, id)
	case gone(err):
		tt.unknown = append(tt.unknown, id)
	default:
		tt.t.Errorf("command %s refused: %v", id, err)
	}
}

// judge counts: each acknowledged record once, each acknowledged command once, none that
// is neither acknowledged nor unknown.
func (tt *torture) judge(kills int) {
	tt.t.Helper()
	tt.verified()
	records, commands := map[string]int{}, map[string]int{}
	for _, e := range tt.exported() {
		id, _ := e["id"].(string)
		if corr, _ := e["correlationId"].(string); strings.HasPrefix(corr, "torture-") {
			commands[corr]++
		}
		if strings.HasPrefix(id, "use-") || strings.HasPrefix(id, "import-") {
			records[id]++
		}
	}
	doubled := 0
	for id, n := range records {
		if n != 1 {
			doubled++
			tt.t.Errorf("record %s is there %d times", id, n)
		}
	}
	if int64(len(records)) != tt.sent.Load() {
		tt.t.Errorf("%d records are there, %d were acknowledged", len(records), tt.sent.Load())
	}
	for _, id := range tt.acked {
		if commands[id] != 1 {
			tt.t.Errorf("acknowledged command %s is there %d times", id, commands[id])
		}
		delete(commands, id)
	}
	for _, id := range tt.unknown {
		if commands[id] > 1 {
			tt.t.Errorf("command %s without an answer is there %d times", id, commands[id])
		}
		delete(commands, id)
	}
	for id, n := range commands {
		tt.t.Errorf("command %s, never sent to its end, is there %d times", id, n)
	}
	if n := tt.uses(); int64(n) < tt.sent.Load() {
		tt.t.Errorf("the rollups count %d uses, %d were acknowledged", n, tt.sent.Load())
	}
	tt.t.Logf("%d kills: %d records and %d commands acknowledged, %d commands without an answer, %d doubled", kills, tt.sent.Load(), len(tt.acked), len(tt.unknown), doubled)
	if tt.sent.Load() < 20 || len(tt.acked) < 20 {
		tt.t.Error("too little was written for this to prove anything")
	}
}

func TestAKilledServerLeavesNoEngineBehind(t *testing.T) {
	s := newSystem(t)
	out, err := exec.Command("pgrep", "-P", strconv.Itoa(s.srv.PID())).Output()
	if err != nil {
		t.Fatalf("the server has no child: %v", err)
	}
	child, err := strconv.Atoi(strings.Fields(string(out))[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := s.srv.Kill(); err != nil {
		t.Fatal(err)
	}
	s.srv = nil
	deadline := time.After(30 * time.Second)
	for syscall.Kill(child, 0) == nil {
		select {
		case <-deadline:
			t.Fatalf("engine %d outlives its killed parent", child)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
