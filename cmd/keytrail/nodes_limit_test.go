package main

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"
)

// TestTheLimitIsExactOnTwoNodes: of forty creations at once on two processes twenty are
// carried out, of eight classic keys one, of eight keys with one value one.
func TestTheLimitIsExactOnTwoNodes(t *testing.T) {
	in := newInstallation(t, false)
	a := in.node("a", "api", "", "")
	b := in.node("b", "api", "", "")
	s := system{t: t, api: a.api}
	iam, account := s.me()
	var svc struct {
		IAMID string `json:"iam_id"`
	}
	if err := s.post(http.MethodPost, "/v1/serviceids", map[string]string{"name": "limited", "account_id": account}, &svc); err != nil {
		t.Fatal(err)
	}
	until(t, 10*time.Second, "known to the other node", func() bool {
		status, _ := b.ask(http.MethodGet, "/v1/apikeys?scope=entity&account_id="+account+"&iam_id="+svc.IAMID, "", nil, nil)
		return status != http.StatusNotFound
	})
	race := func(what string, n, want int, body func(i int) map[string]string) {
		t.Helper()
		var wg sync.WaitGroup
		status := make([]int, n)
		for i := range n {
			wg.Go(func() {
				at := a
				if i%2 == 1 {
					at = b
				}
				status[i], _ = at.ask(http.MethodPost, "/v1/apikeys", "", body(i), nil)
			})
		}
		wg.Wait()
		made := 0
		for _, code := range status {
			switch code {
			case http.StatusCreated:
				made++
			case http.StatusConflict:
			default:
				t.Errorf("%s: one is answered %d", what, code)
			}
		}
		if made != want {
			t.Errorf("%s: %d of %d, want %d", what, made, n, want)
		}
	}
	race("keys of a service ID", 40, 20, func(i int) map[string]string {
		return map[string]string{"name": fmt.Sprint("k", i), "iam_id": svc.IAMID}
	})
	race("classic keys", 8, 1, func(i int) map[string]string {
		return map[string]string{"name": fmt.Sprint("c", i), "iam_id": iam, "type": "classic"}
	})
	race("keys with one value", 8, 1, func(i int) map[string]string {
		return map[string]string{"name": fmt.Sprint("v", i), "iam_id": iam, "apikey": "one value for all of these keys!"}
	})
}
