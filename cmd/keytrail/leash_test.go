package main

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

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
