package main

import (
	"fmt"
	"net/http"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

// TestAHungEngineIsReplacedWhileCommandsGoOn: the child of the embedded ClickHouse stands
// still; its supervisor notices, and the tables catch up by the next one.
func TestAHungEngineIsReplacedWhileCommandsGoOn(t *testing.T) {
	s := newSystem(t)
	iam, _ := s.me()
	s.manyKeys()
	n := &node{in: &installation{t: t}, name: "n", Server: s.srv, api: s.api}
	if out, err := exec.Command("pkill", "-STOP", "-P", strconv.Itoa(s.srv.PID())).CombinedOutput(); err != nil {
		t.Fatalf("stop the engine: %v %s", err, out)
	}
	began, position := time.Now(), ""
	for i := 0; n.metric("keytrail_engine_restarts_total") == 0; i++ {
		var status int
		if _, position, status = n.create(iam, fmt.Sprint("hung ", i)); status != http.StatusCreated {
			t.Fatalf("a command is answered %d while the engine hangs", status)
		}
		if time.Since(began) > time.Minute {
			t.Fatal("the engine hangs, and nobody minds")
		}
		<-time.After(100 * time.Millisecond)
	}
	until(t, time.Minute, "ready again", func() bool { // The next one takes a moment to answer.
		code, word, _ := n.ready()
		return code == http.StatusOK && word == "ok"
	})
	t.Logf("the engine was replaced after %v, the tables held everything %v later", time.Since(began), n.tablesHold(position))
	s.verified()
}
