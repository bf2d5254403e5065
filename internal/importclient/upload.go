package importclient

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"example.com/keytrail/internal/client"
	"example.com/keytrail/internal/cloudtrail"
)

const (
	retryFirst = 500 * time.Millisecond
	retryMax   = 15 * time.Second
)

// run is one import.
type run struct {
	opt   Options
	done  *resume
	total int64

	mu             sync.Mutex // Guards what follows.
	report         Report
	seen           int64 // Bytes of all files.
	keys, accounts map[string]struct{}
}

// batch is one upload: records, one a line, and where each came from.
type batch struct {
	data    []byte
	origins []origin
	sources []*source
}

type origin struct {
	source *source
	record uint64
}

func (b *batch) add(src *source, raw cloudtrail.Raw) {
	if n := len(b.sources); n == 0 || b.sources[n-1] != src {
		b.sources = append(b.sources, src)
		src.open(1, nil)
	}
	b.data = append(append(b.data, raw.JSON...), '\n')
	b.origins = append(b.origins, origin{source: src, record: raw.Ordinal})
}

// source is a file and how many batches hold records of it that are not acknowledged.
type source struct {
	file file
	sum  string

	mu      sync.Mutex // Guards pending.
	pending int
}

// open changes the count of pending parts: the reading of the file is one, each batch
// another. When the last one ends, finished is called.
func (s *source) open(n int, finished func(*source)) {
	s.mu.Lock()
	s.pending += n
	over := n < 0 && s.pending == 0
	s.mu.Unlock()
	if over && finished != nil {
		finished(s)
	}
}

// answer is what the server says about a batch.
type answer struct {
	Accepted      uint64 `json:"accepted"`
	Uses          uint64 `json:"uses"`
	Repeated      uint64 `json:"repeated"`
	Facts         uint64 `json:"facts"`
	RejectedCount uint64 `json:"rejected_count"`
	Rejected      []struct {
		Line  uint64 `json:"line"`
		Error string `json:"error"`
	} `json:"rejected"`
	Position string `json:"position"`
}

// upload sends b until the server has taken it.
func (r *run) upload(ctx context.Context, b *batch) error {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	body := z.EncodeAll(b.data, nil)
	sum := sha256.Sum256(body)
	req := client.Request{
		Method: http.MethodPost, Path: "/v1/imports/cloudtrail", Length: int64(len(body)),
		Header: http.Header{
			"Content-Type": {"application/x-ndjson"}, "Content-Encoding": {"zstd"},
			"Keytrail-Batch-Id": {"import-" + hex.EncodeToString(sum[:])},
		},
	}
	var waited time.Duration
	for pause := retryFirst; ; pause = min(2*pause, retryMax) {
		var a answer
		req.Body = bytes.NewReader(body)
		err := r.opt.Client.JSON(ctx, req, nil, &a)
		if err == nil {
			return r.acknowledged(b, a)
		}
		if ctx.Err() != nil || !passing(err) || waited >= r.opt.Patience {
			return fmt.Errorf("import %s: %w", b.origins[0].source.file.path, err)
		}
		if e, ok := errors.AsType[*client.Error](err); ok && e.RetryAfter > pause {
			pause = e.RetryAfter
		}
		r.retrying(err, pause)
		if err := r.opt.Wait(ctx, pause); err != nil {
			return err
		}
		waited += pause
	}
}

// passing reports whether an error may pass by itself: no answer, a busy server, a
// proxy whose server restarts.
func passing(err error) bool {
	e, ok := errors.AsType[*client.Error](err)
	if !ok {
		return true
	}
	switch e.Status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusGatewayTimeout:
		return true
	}
	return false
}

func (r *run) retrying(err error, pause time.Duration) {
	r.mu.Lock()
	r.report.Retries++
	r.mu.Unlock()
	r.opt.Notice(fmt.Sprintf("the server does not take it (%v); again in %s", err, pause))
}

// acknowledged counts what the server took.
func (r *run) acknowledged(b *batch, a answer) error {
	if got := a.Accepted + a.RejectedCount; got != uint64(len(b.origins)) {
		return fmt.Errorf("import %s: the server speaks of %d records, %d were sent", b.origins[0].source.file.path, got, len(b.origins))
	}
	r.mu.Lock()
	r.report.Uses += a.Uses
	r.report.Repeated += a.Repeated
	r.report.Facts += a.Facts
	r.report.Malformed += a.RejectedCount
	for _, bad := range a.Rejected {
		if len(r.report.Examples) < ExamplesMax && bad.Line >= 1 && bad.Line <= uint64(len(b.origins)) {
			o := b.origins[bad.Line-1]
			r.report.Examples = append(r.report.Examples, Malformed{File: o.source.file.path, Record: o.record, Reason: bad.Error})
		}
	}
	if newer(a.Position, r.report.Position) {
		r.report.Position = a.Position
	}
	r.mu.Unlock()
	for _, src := range b.sources {
		src.open(-1, r.finished)
	}
	return nil
}

func newer(a, b string) bool {
	x, errA := strconv.ParseUint(a, 10, 64)
	y, errB := strconv.ParseUint(b, 10, 64)
	return errA == nil && (errB != nil || x > y)
}

// finished remembers a file all of whose records were acknowledged.
func (r *run) finished(src *source) {
	if err := r.done.add(src.sum, src.file.path); err != nil {
		r.opt.Notice(fmt.Sprintf("cannot note that %s is done (it will be sent again): %v", src.file.path, err))
	}
}

func (r *run) malformed(m Malformed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Malformed++
	if len(r.report.Examples) < ExamplesMax {
		r.report.Examples = append(r.report.Examples, m)
	}
}

func (r *run) finish(elapsed time.Duration) Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.report
	out.Records = out.Uses + out.Repeated + out.Malformed
	out.Keys, out.Accounts, out.Elapsed = len(r.keys), len(r.accounts), elapsed
	return out
}

// counting tells the progress how much of the files was read.
type counting struct {
	r   io.Reader
	run *run
}

// Read implements io.Reader.
func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.run.mu.Lock()
	c.run.seen += int64(n)
	c.run.opt.Progress(c.run.seen, max(c.run.total, c.run.seen))
	c.run.mu.Unlock()
	return n, err //nolint:wrapcheck // A reader passes its source's errors on.
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // The caller's own.
	}
}
