package torture_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"example.com/keytrail/internal/client"
	"example.com/keytrail/internal/faults"
	"example.com/keytrail/internal/launch"
)

// one is keytrail as most run it: one process with both stores inside.
func one() arrangement {
	return arrangement{
		name: "one process",
		build: func(ctx context.Context, s *site) error {
			_, err := s.addNode(ctx, "server", s.data)
			return err
		},
		faults: []fault{
			{name: "kill server", kills: 1, odds: 6, do: func(ctx context.Context, e *episode) error { return e.nodes[0].kill(ctx) }},
			{name: "kill engine", kills: 1, odds: 4, do: func(ctx context.Context, e *episode) error { return e.nodes[0].killEngine(ctx) }},
			{name: "kill server and engine at once", kills: 2, odds: 2, do: killBoth},
			{name: "kill during start-up", kills: 2, odds: 3, do: killStarting},
			{name: "kill during recovery", kills: 2, odds: 3, do: killRecovering},
			{name: "killed again and again", kills: stormKills, odds: 3, do: killStorm},
			{name: "hung engine", odds: 2, do: hangEngine(500*time.Millisecond, 6*time.Second)},
			{name: "hung engine, until it is killed", slow: true, do: hangEngine(25*time.Second, 40*time.Second)},
			{name: "hung server", do: hangServer},
			{name: "clock jumps forth and back", odds: 2, do: jumpClock},
			{name: "clock jumps, killed between", kills: 1, odds: 2, do: jumpClockAndKill},
			{name: "token and key expire by a clock that jumps", do: expire},
			{name: "clients cut off", odds: 2, do: cutClients},
			{name: "clients' requests cut in the middle", odds: 2, do: spoilClients(func(e *episode) faults.Link { return faults.Link{CutRequest: 1 + e.rng.Int64N(4000)} })},
			{name: "clients' answers cut in the middle", odds: 2, do: spoilClients(func(e *episode) faults.Link { return faults.Link{CutAnswer: 1 + e.rng.Int64N(4000)} })},
			{name: "clients' answers lost", do: spoilClients(func(*episode) faults.Link { return faults.Link{Mute: true} })},
			{name: "slow clients", do: spoilClients(func(e *episode) faults.Link {
				return faults.Link{Delay: e.between(10*time.Millisecond, 200*time.Millisecond)}
			})},
			{name: "EIO in the log's files", odds: 3, do: failCalls("error=EIO", logFiles, 200*time.Millisecond, 2*time.Second)},
			{name: "EIO in the log's files for longer than callers wait", slow: true, do: failCalls("error=EIO", logFiles, 12*time.Second, 18*time.Second)},
			{name: "ENOSPC in the log's files", do: failCalls("error=ENOSPC", logFiles, 200*time.Millisecond, 2*time.Second)},
			{name: "slow disk under the log", odds: 2, do: slowCalls(logFiles)},
			{name: "EIO in the engine's files", odds: 2, do: failCalls("error=EIO", engineFiles, 200*time.Millisecond, 4*time.Second)},
			{name: "slow disk under the engine", odds: 2, do: slowCalls(engineFiles)},
			{name: "torn write: killed before a sync, parts of what was written lost or garbled", kills: 1, odds: 4, do: tear},
		},
	}
}

func killBoth(ctx context.Context, e *episode) error {
	n := e.nodes[0]
	engine, err := n.engine()
	if err != nil {
		return n.kill(ctx) // It is between two engines.
	}
	if err := faults.Signal(syscall.SIGKILL, engine, n.pid()); err != nil {
		return err
	}
	return n.kill(ctx)
}

// killStarting kills the server, and the next one before it serves.
func killStarting(ctx context.Context, e *episode) error {
	n := e.nodes[0]
	if err := n.end(); err != nil {
		return err
	}
	short, cancel := context.WithTimeout(ctx, e.between(5*time.Millisecond, 900*time.Millisecond))
	defer cancel()
	srv, err := launch.Start(short, n.config()) // Kills what does not serve in time.
	switch {
	case err == nil:
		if err := srv.Kill(); err != nil {
			return err
		}
	case !errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return n.start(ctx)
}

// killRecovering kills the server, and the next one as soon as it serves.
func killRecovering(ctx context.Context, e *episode) error {
	if err := e.nodes[0].kill(ctx); err != nil {
		return err
	}
	pause(e.between(0, 300*time.Millisecond))
	return e.nodes[0].kill(ctx)
}

// stormKills is how often killStorm kills.
const stormKills = 5

// killStorm kills the server as often as it comes up.
func killStorm(ctx context.Context, e *episode) error {
	for range stormKills {
		if err := e.nodes[0].kill(ctx); err != nil {
			return err
		}
		pause(e.between(0, 500*time.Millisecond))
	}
	return nil
}

func hangEngine(low, high time.Duration) func(context.Context, *episode) error {
	return func(_ context.Context, e *episode) error {
		pid, err := e.nodes[0].engine()
		if err != nil {
			return nil //nolint:nilerr // Between two engines there is none to hang.
		}
		return hang(pid, e.between(low, high))
	}
}

func hangServer(_ context.Context, e *episode) error {
	return hang(e.nodes[0].pid(), e.between(500*time.Millisecond, 5*time.Second))
}

func hang(pid int, d time.Duration) error {
	if err := faults.Signal(syscall.SIGSTOP, pid); err != nil {
		return err
	}
	pause(d)
	return faults.Signal(syscall.SIGCONT, pid)
}

// jump is a distance that clocks are found to be off by.
func (e *episode) jump() time.Duration {
	far := []time.Duration{time.Minute, time.Hour, 26 * time.Hour, 40 * 24 * time.Hour}[e.rng.IntN(4)]
	d := e.between(time.Second, far)
	if e.rng.IntN(2) == 0 {
		return -d
	}
	return d
}

// jumpClock moves the clock of one node.
func jumpClock(_ context.Context, e *episode) error {
	clock := e.node().clock
	for range 1 + e.rng.IntN(3) {
		if err := clock.Set(e.jump()); err != nil {
			return err
		}
		pause(e.between(100*time.Millisecond, 800*time.Millisecond))
	}
	return clock.Set(0)
}

func jumpClockAndKill(ctx context.Context, e *episode) error {
	if err := e.nodes[0].clock.Set(e.jump()); err != nil {
		return err
	}
	pause(e.between(50*time.Millisecond, 300*time.Millisecond))
	if err := e.nodes[0].kill(ctx); err != nil {
		return err
	}
	pause(e.between(50*time.Millisecond, 300*time.Millisecond))
	return e.nodes[0].clock.Set(0)
}

// expire checks that what ends at a time ends by the clock: when the clock has jumped past
// it, and not once it has jumped back.
func expire(ctx context.Context, e *episode) error {
	api := e.nodes[0].past()
	id := fmt.Sprintf("c-expiring-%d", e.rng.Uint64())
	e.book.send(command, id)
	var k key
	in := map[string]string{"name": id, "iam_id": e.w.iamID, "expires_at": time.Now().Add(30 * time.Minute).UTC().Format("2006-01-02T15:04-0700")}
	if err := api.JSON(ctx, client.Request{Method: http.MethodPost, Path: "/v1/apikeys", Header: header(id)}, in, &k); err != nil {
		return fmt.Errorf("make a key that expires: %w", err)
	}
	e.book.ack(command, id)
	var token struct {
		AccessToken string `json:"access_token"`
	}
	signIn := fmt.Sprintf("l-expiring-%d", e.rng.Uint64())
	e.book.send(login, signIn)
	if _, err := e.w.signIn(ctx, e.rng, signIn, &token); err != nil {
		return fmt.Errorf("sign in: %w", err)
	}
	e.book.ack(login, signIn)
	for _, at := range []struct {
		name   string
		offset time.Duration
		good   bool
	}{{"before the jump", 0, true}, {"two hours later", 2 * time.Hour, false}, {"back again", 0, true}, {"a minute back", -time.Minute, true}} {
		if err := e.nodes[0].clock.Set(at.offset); err != nil {
			return err
		}
		for what, secret := range map[string]string{"token": token.AccessToken, "key": k.APIKey} {
			got, err := e.accepted(ctx, secret)
			if err != nil {
				return fmt.Errorf("%s: %w", at.name, err)
			}
			if got != at.good {
				return errors.Join(fmt.Errorf("%s, the %s is accepted: %t, want %t", at.name, what, got, at.good), e.nodes[0].clock.Set(0))
			}
		}
	}
	return e.nodes[0].clock.Set(0)
}

// accepted reports whether the server takes secret as a credential.
func (e *episode) accepted(ctx context.Context, secret string) (bool, error) {
	c, err := client.New(client.Config{Server: "http://" + e.nodes[0].front.Address(), Key: secret})
	if err != nil {
		return false, err
	}
	defer c.Close()
	err = c.JSON(ctx, client.Request{Method: http.MethodGet, Path: "/v1/projections"}, nil, nil)
	if answer, ok := errors.AsType[*client.Error](err); ok && answer.Status == http.StatusUnauthorized {
		return false, nil
	}
	return err == nil, err
}

func cutClients(_ context.Context, e *episode) error {
	for range 1 + e.rng.IntN(5) {
		e.nodes[0].front.Cut()
		pause(e.between(5*time.Millisecond, 200*time.Millisecond))
	}
	return nil
}

// spoilClients spoils the way between clients and server for a while.
func spoilClients(link func(e *episode) faults.Link) func(context.Context, *episode) error {
	return func(_ context.Context, e *episode) error {
		front := e.nodes[0].front
		front.Set(link(e))
		pause(e.between(200*time.Millisecond, 1500*time.Millisecond))
		front.Set(faults.Link{})
		front.Cut() // Nobody waits for what is lost.
		return nil
	}
}

// target finds a process and those of its files whose calls are to go wrong.
type target func(e *episode) (pid int, paths []string, err error)

// all is the same process with all its files, those too that it makes later on.
func (of target) all() target {
	return func(e *episode) (int, []string, error) {
		pid, _, err := of(e)
		return pid, nil, err
	}
}

// logFiles are the files of the event log, in the server.
func logFiles(e *episode) (int, []string, error) {
	dir := filepath.Join(e.data, "eventstore")
	entries, err := os.ReadDir(e.file(dir))
	if err != nil {
		return 0, nil, err
	}
	var paths []string
	for _, f := range entries {
		paths = append(paths, filepath.Join(dir, f.Name()))
	}
	return e.nodes[0].pid(), append(paths, dir), nil
}

// engineFiles are all files of the engine.
func engineFiles(e *episode) (int, []string, error) {
	pid, err := e.nodes[0].engine()
	return pid, nil, err
}

// writeCalls are the system calls by which files are written.
func writeCalls() []string {
	return []string{"write", "pwrite64", "writev", "pwritev", "fsync", "fdatasync", "ftruncate", "fallocate", "sync_file_range"}
}

// syncCalls make files durable.
func syncCalls() []string { return []string{"fsync", "fdatasync", "msync", "sync_file_range"} }

// failCalls makes a share of the calls fail for a while: all of them, or only syncs, or
// one in some.
func failCalls(errno string, of target, low, high time.Duration) func(context.Context, *episode) error {
	return func(ctx context.Context, e *episode) error {
		calls, where := writeCalls(), of // Other writes of the process are not the disk's.
		if e.rng.IntN(2) == 0 {
			calls, where = syncCalls(), of.all()
		}
		when := ""
		if n := e.rng.IntN(4); n > 0 {
			when = fmt.Sprintf(":when=%d+%d", 1+e.rng.IntN(5), n)
		}
		return e.spoil(ctx, where, calls, errno+when, e.between(low, high))
	}
}

// slowCalls makes what is synced wait.
func slowCalls(of target) func(context.Context, *episode) error {
	return func(ctx context.Context, e *episode) error {
		wait := e.between(20*time.Millisecond, 600*time.Millisecond)
		return e.spoil(ctx, of.all(), syncCalls(), "delay_enter="+micros(wait), e.between(time.Second, 3*time.Second))
	}
}

// micros is a duration as strace takes it.
func micros(d time.Duration) string { return strconv.FormatInt(d.Microseconds(), 10) }

// spoil makes calls go wrong for a while.
func (e *episode) spoil(ctx context.Context, of target, calls []string, inject string, d time.Duration) error {
	pid, paths, err := of(e)
	if err != nil {
		return err
	}
	e.log.note("strace %d: %v %s %v", pid, calls, inject, paths)
	tr, err := faults.StartTrace(ctx, pid, faults.Spoil{Calls: calls, Inject: inject, Paths: paths})
	if err != nil {
		return err
	}
	pause(d)
	return e.unspoil(tr)
}

// unspoil lets the process go.
func (e *episode) unspoil(tr *faults.Trace) error {
	spoilt, err := tr.Stop()
	e.log.note("%d calls were spoilt", spoilt)
	e.total.spoilt(spoilt)
	return err
}
