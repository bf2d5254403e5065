//go:build !linux

package clickhouse

import "fmt"

// confineThread cannot confine anything on this system.
func confineThread(cfg childConfig, _ string) (bool, error) {
	if cfg.allowUnconfined {
		return false, nil
	}
	return false, fmt.Errorf("%w: this needs Linux with Landlock: allow the engine to run unconfined and let no SQL in from outside", ErrUnconfined)
}

func sealProcess(childConfig) error { return nil }
