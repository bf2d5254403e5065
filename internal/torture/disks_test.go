package torture_test

import (
	"context"
	"path/filepath"
	"time"

	"example.com/keytrail/internal/faults"
)

// diskBytes is the size of each small file system.
const diskBytes = 96 << 20

// disks is one process whose event log, engine and remaining data lie on small file
// systems, one each.
func disks() arrangement {
	log, engine, rest := "eventstore", "clickhouse", ""
	return arrangement{
		name: "small disks",
		build: func(ctx context.Context, s *site) error {
			var err error
			s.disks, err = faults.NewDisks(ctx,
				faults.Disk{Path: s.data, SizeBytes: diskBytes},
				faults.Disk{Path: filepath.Join(s.data, log), SizeBytes: diskBytes},
				faults.Disk{Path: filepath.Join(s.data, engine), SizeBytes: diskBytes})
			if err != nil {
				return err
			}
			_, err = s.addNode(ctx, "server", s.data)
			return err
		},
		faults: []fault{
			{name: "ENOSPC for the log", odds: 3, do: fill(200*time.Millisecond, 3*time.Second, log)},
			{name: "ENOSPC for the log, for longer than callers wait", slow: true, do: fill(12*time.Second, 16*time.Second, log)},
			{name: "ENOSPC for the engine", odds: 3, do: fill(200*time.Millisecond, 4*time.Second, engine)},
			{name: "ENOSPC for the rest of the data folder", do: fill(200*time.Millisecond, 2*time.Second, rest)},
			{name: "ENOSPC for the whole data folder", odds: 3, do: fill(200*time.Millisecond, 4*time.Second, log, engine, rest)},
			{name: "ENOSPC for the whole data folder, for longer than callers wait", slow: true, do: fill(12*time.Second, 16*time.Second, log, engine, rest)},
			{name: "ENOSPC, server killed, then space", kills: 1, odds: 3, do: fillAndKill(log, engine, rest)},
			{name: "ENOSPC, engine killed, then space", kills: 1, odds: 2, do: fillAndKillEngine},
			{name: "kill server on small disks", kills: 1, do: func(ctx context.Context, e *episode) error { return e.nodes[0].kill(ctx) }},
		},
	}
}

// fill leaves some bytes, so that the writers run into the end of the disk anywhere, and
// gives the room back after a while.
func (e *episode) fill(folders ...string) error {
	for _, f := range folders {
		if err := e.disks.Fill(filepath.Join(e.data, f), e.rng.Int64N(64<<10)); err != nil {
			return err
		}
	}
	return nil
}

func (e *episode) empty(folders ...string) error {
	for _, f := range folders {
		if err := e.disks.Empty(filepath.Join(e.data, f)); err != nil {
			return err
		}
	}
	return nil
}

func fill(low, high time.Duration, folders ...string) func(context.Context, *episode) error {
	return func(_ context.Context, e *episode) error {
		if err := e.fill(folders...); err != nil {
			return err
		}
		pause(e.between(low, high))
		return e.empty(folders...)
	}
}

// fillAndKill kills the server while its disks are full: it need not start on full disks,
// but must once there is room.
func fillAndKill(folders ...string) func(context.Context, *episode) error {
	return func(ctx context.Context, e *episode) error {
		if err := e.fill(folders...); err != nil {
			return err
		}
		pause(e.between(100*time.Millisecond, time.Second))
		if err := e.nodes[0].end(); err != nil {
			return err
		}
		if err := e.empty(folders...); err != nil {
			return err
		}
		return e.nodes[0].start(ctx)
	}
}

// fillAndKillEngine lets the engine try to start on a full disk for a while.
func fillAndKillEngine(ctx context.Context, e *episode) error {
	if err := e.fill("clickhouse"); err != nil {
		return err
	}
	if err := e.nodes[0].killEngine(ctx); err != nil {
		return err
	}
	pause(e.between(200*time.Millisecond, 3*time.Second))
	return e.empty("clickhouse")
}
