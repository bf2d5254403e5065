package ingest_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keytrail/domain"
	"example.com/keytrail/ingest"
)

func TestARotatedKeyGoesOnForItsOverlapAndEndsByItself(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.limit(2) // The administrator's and this one: the successor is outside.
	id, old := n.createKey(n.admin, n.boot.Owner, "rotating")
	n.must(200, n.call(n.admin, "PUT", "/v1/apikeys/"+id, map[string]any{"description": "kept", "action_when_leaked": "delete"}, "If-Match", "*"))
	r := n.must(201, n.call(n.admin, "POST", "/v1/apikeys/"+id+"/rotate", map[string]any{"overlap": "1h"}))
	next := r.field("apikey")
	if r.field("predecessor") != id || r.field("name") != "rotating" || r.field("description") != "kept" || r.field("action_when_leaked") != "delete" || next == old || next == "" {
		t.Fatalf("successor: %s", r.raw)
	}
	shown := n.must(200, n.call(next, "GET", "/v1/apikeys/"+id, nil))
	if shown.field("successor") != r.field("id") || shown.field("ends_at") == "" {
		t.Errorf("old key: %s", shown.raw)
	}
	n.must(200, n.call(old, "GET", "/v1/apikeys/"+id, nil))
	if code, _ := n.must(409, n.call(n.admin, "POST", "/v1/apikeys/"+id+"/rotate", nil)).failure(); code != "already_rotated" {
		t.Errorf("rotated again: %q", code)
	}
	if code, _ := n.must(409, n.call(n.admin, "POST", "/v1/apikeys/"+r.field("id")+"/rotate", nil)).failure(); code != "rotation_under_way" {
		t.Errorf("its successor rotated: %q", code)
	}
	for _, expires := range []string{"", "2099-01-01T00:00+0000"} {
		if code, _ := n.must(409, n.call(n.admin, "PUT", "/v1/apikeys/"+id, map[string]any{"expires_at": expires}, "If-Match", "*")).failure(); code != "key_rotated" {
			t.Errorf("it is made to live on until %q: %q", expires, code)
		}
	}
	n.must(409, n.call(n.admin, "POST", "/v1/apikeys", map[string]any{"name": "more", "iam_id": n.boot.Owner}))
	n.clock.Advance(time.Hour + time.Second)
	n.must(401, n.call(old, "GET", "/v1/apikeys", nil)) // Without any job.
	if err := n.reconciler(n.commands, time.Hour).Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{"user-apikey.create normal", "user-apikey.update warning", "user-apikey.rotate critical", "user-apikey.delete critical"}
	if diff := cmp.Diff(want, n.actions(domain.KeyStream(domain.KeyID(id)))); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	n.soundSlots("after the end", 2)
	n.must(201, n.call(next, "POST", "/v1/apikeys/"+r.field("id")+"/rotate", map[string]any{"overlap": 0}))
	n.must(401, n.call(next, "GET", "/v1/apikeys", nil)) // At once.
	n.nowhere(next)
}

func TestWhoMayRotateWhat(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	admin, responder := n.member("User-a", domain.RoleAdministrator), n.member("User-r", domain.RoleResponder)
	id, _ := n.createKey(n.admin, n.boot.Owner, "owner's")
	service := n.serviceID(map[string]any{}).field("iam_id")
	rotate := func(key, id string, status int) {
		t.Helper()
		n.must(status, n.call(key, "POST", "/v1/apikeys/"+id+"/rotate", map[string]any{"overlap": 60}))
	}
	rotate(admin, id, 403) // He would see another user's value.
	rotate(responder, id, 403)
	for _, who := range []string{admin, responder} {
		k, _ := n.createKey(n.admin, domain.IAMID(service), "service's")
		rotate(who, k, 201)
	}
	n.must(204, n.call(n.admin, "POST", "/v1/apikeys/"+id+"/lock", nil))
	rotate(n.admin, id, 409)
	n.must(404, n.call(n.admin, "POST", "/v1/apikeys/ApiKey-none/rotate", nil))
	for _, overlap := range []any{-1, "x", "25s1ms", 1e12, true, "2161h"} {
		r := n.must(400, n.call(n.admin, "POST", "/v1/apikeys/"+id+"/rotate", map[string]any{"overlap": overlap}))
		if _, field := r.failure(); field != "overlap" {
			t.Errorf("overlap %v: %s", overlap, r.raw)
		}
	}
}

// TestAKeyHasOneSuccessor however many rotate it at the same time.
func TestAKeyHasOneSuccessor(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	id, _ := n.createKey(n.admin, n.boot.Owner, "k")
	var wg sync.WaitGroup
	status := make([]int, 8)
	for i := range status {
		wg.Go(func() {
			status[i] = n.call(n.admin, "POST", "/v1/apikeys/"+id+"/rotate", nil).status
		})
	}
	wg.Wait()
	made := 0
	for _, s := range status {
		if s == http.StatusCreated {
			made++
		} else if s != http.StatusConflict {
			t.Errorf("answered %d", s)
		}
	}
	if made != 1 {
		t.Errorf("%d successors", made)
	}
	n.soundSlots("after eight", domain.KeyLimitDefault)
}

// TestARotationThatBreaksOffIsUndone: the process dies before or after each append; another
// one settles. Either the old key ends and its successor's value was told, or the old key
// goes on alone, and can be rotated.
func TestARotationThatBreaksOffIsUndone(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for left := range 4 {
		for _, stored := range []bool{false, true} {
			name := fmt.Sprintf("%d appends, then one is stored %t", left, stored)
			iam := domain.IAMID(fmt.Sprintf("User-%d-%t", left, stored))
			old, _, _, err := n.commands.CreateKey(t.Context(), systemOrder(), ingest.NewKey{Account: n.boot.Account, IAMID: iam, Name: "old"})
			if err != nil {
				t.Fatal(err)
			}
			ref := ingest.KeyRef{ID: old.State().ID}
			mortal := n.process(&mortalLog{CommandLog: n.log, left: left, stored: stored})
			_, _, _, told := mortal.RotateKey(t.Context(), systemOrder(), ref, time.Hour)
			if told != nil && !errors.Is(told, errDied) {
				t.Fatalf("%s: %v", name, told)
			}
			survivor := n.reconciler(n.process(n.log), 0)
			for range 2 {
				if err := survivor.Reconcile(t.Context()); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			n.soundSlots(name, domain.KeyLimitDefault)
			state, _, err := n.process(n.log).ReadKey(t.Context(), systemOrder(), ref)
			if err != nil {
				t.Fatal(err)
			}
			// Stored, and nobody told: the step was done, and the rotation stands.
			done := told == nil || left == 2 && stored
			if rotated := state.State().Successor != ""; rotated != done {
				t.Errorf("%s: rotated %t, want %t", name, rotated, done)
			}
			if done {
				continue
			}
			if _, _, _, err := n.process(n.log).RotateKey(t.Context(), systemOrder(), ref, time.Hour); err != nil {
				t.Errorf("%s: it cannot be rotated any more: %v", name, err)
			}
		}
	}
}

// TestARotationThatIsMerelySlowLoses: it was undone while it slept, and perhaps another after
// it.
func TestARotationThatIsMerelySlowLoses(t *testing.T) {
	t.Parallel()
	for _, others := range []int{0, 1, 2} {
		t.Run(fmt.Sprintf("%d others undone since", others), func(t *testing.T) { slowRotationLoses(t, others) })
	}
}

func slowRotationLoses(t *testing.T, others int) {
	t.Helper()
	t.Parallel()
	n := newNode(t)
	old, _, _, err := n.commands.CreateKey(t.Context(), systemOrder(), ingest.NewKey{Account: n.boot.Account, IAMID: "User-x", Name: "old"})
	if err != nil {
		t.Fatal(err)
	}
	ref := ingest.KeyRef{ID: old.State().ID}
	slow := &sleepyLog{CommandLog: n.log, wake: func(stream string) {
		if stream != domain.KeyStream(ref.ID) {
			return
		}
		for try := range others + 1 {
			if try > 0 { // It dies when its successor is made.
				mortal := n.process(&mortalLog{CommandLog: n.log, left: 2})
				if _, _, _, err := mortal.RotateKey(t.Context(), systemOrder(), ref, time.Hour); !errors.Is(err, errDied) {
					t.Errorf("another rotation: %v", err)
				}
			}
			if err := n.reconciler(n.process(n.log), 0).Reconcile(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}}
	_, _, _, err = n.process(slow).RotateKey(t.Context(), systemOrder(), ref, time.Hour)
	if e, ok := errors.AsType[*domain.Error](err); !ok || !strings.Contains(e.MessageCode, "rotation_abandoned") {
		t.Errorf("a rotation that was undone: %v", err)
	}
	state, _, err := n.process(n.log).ReadKey(t.Context(), systemOrder(), ref)
	if err != nil || state.State().Successor != "" || state.State().EndsAt != nil {
		t.Errorf("the old key is %+v: %v", state.State(), err)
	}
	n.soundSlots("undone", domain.KeyLimitDefault)
}
