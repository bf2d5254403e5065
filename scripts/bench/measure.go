package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// residentBytes returns the resident memory of a process, and of all its children
// together, as /proc tells.
func residentBytes(pid int) (own, children int64, err error) {
	if own, err = vmRSS(pid); err != nil {
		return 0, 0, err
	}
	pids, err := childrenOf(pid)
	if err != nil {
		return 0, 0, err
	}
	for _, child := range pids {
		n, err := vmRSS(child)
		if err != nil {
			return 0, 0, err
		}
		children += n
	}
	return own, children, nil
}

// childrenOf returns the processes that a process has started.
func childrenOf(pid int) ([]int, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil, err
	}
	var out []int
	for _, name := range tasks {
		b, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // A thread that ended meanwhile.
		}
		if err != nil {
			return nil, err
		}
		for f := range strings.FieldsSeq(string(b)) {
			child, err := strconv.Atoi(f)
			if err != nil {
				return nil, err
			}
			out = append(out, child)
		}
	}
	return out, nil
}

// cpuTimes is what processes have used of the processors.
type cpuTimes struct{ self, process, children time.Duration }

// since returns what was used between before and c.
func (c cpuTimes) since(before cpuTimes) cpuTimes {
	return cpuTimes{self: c.self - before.self, process: c.process - before.process, children: c.children - before.children}
}

// cpuOf returns what this process, another, and the other's children have used.
func cpuOf(pid int) (c cpuTimes, err error) {
	if c.self, err = cpuTime(os.Getpid()); err != nil {
		return c, err
	}
	if c.process, err = cpuTime(pid); err != nil {
		return c, err
	}
	pids, err := childrenOf(pid)
	if err != nil {
		return c, err
	}
	for _, child := range pids {
		used, err := cpuTime(child)
		if err != nil {
			return c, err
		}
		c.children += used
	}
	return c, nil
}

// clockTick is the unit of /proc/PID/stat, the same on every Linux of ours.
const clockTick = 10 * time.Millisecond

// cpuTime returns the user and system time of a process.
func cpuTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(b), ") ") // The name before it may hold blanks.
	fields := strings.Fields(rest)
	if !ok || len(fields) < 13 {
		return 0, fmt.Errorf("process %d has an unknown stat line", pid)
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * clockTick, err
}

func vmRSS(pid int) (int64, error) { return statusBytes(pid, "VmRSS:") }

// statusBytes returns a line of /proc/PID/status that counts memory.
func statusBytes(pid int, name string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("process %d has no %s line", pid, name)
}

// resetPeak lets the peak of a process's resident memory (VmHWM) begin anew.
func resetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// folderBytes returns the bytes of all files below dir.
func folderBytes(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && d.IsDir() {
			return nil // A part that was merged away meanwhile.
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		sum += info.Size()
		return nil
	})
	return sum, err
}
