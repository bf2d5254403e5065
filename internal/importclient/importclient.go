package importclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/keytrail/domain"
	"example.com/keytrail/internal/client"
	"example.com/keytrail/internal/cloudtrail"
)

const (
	defaultBatchBytes = 4 << 20
	defaultPatience   = 10 * time.Minute
	batchRecordsMax   = 10000
	uploads           = 2 // At a time: one is parsed by the server while the next arrives.
	// ExamplesMax bounds the malformed records that a report shows; all are counted.
	ExamplesMax = 20
)

// Options says what to import and how.
type Options struct {
	// Client is the server and who asks. Required.
	Client *client.Client
	// Server names the server in the resume file.
	Server string
	// Paths are files, folders (searched for *.json, *.jsonl, *.ndjson, *.log, also with
	// .gz or .zst), patterns, or "-" for Stdin.
	Paths []string
	Stdin io.Reader
	// Resume, if set, is a file that remembers which files were imported whole, by
	// their SHA-256 and the server's name; they are skipped the next time. Without it
	// everything is sent, and what the server has is repeated.
	Resume string
	// Progress, if set, is told the bytes read of all files together.
	Progress func(done, total int64)
	// Notice, if set, is told what a person should know while it goes on.
	Notice func(string)
	// BatchBytes is how many bytes of records go into one upload. Default 4 MiB.
	BatchBytes int
	// Patience is how long a batch is sent again while the server does not take it.
	// Default 10 minutes.
	Patience time.Duration
	// Wait, if set, waits between two tries; tests need not.
	Wait func(context.Context, time.Duration) error
}

func (o *Options) setDefaults() {
	if o.BatchBytes == 0 {
		o.BatchBytes = defaultBatchBytes
	}
	if o.Patience == 0 {
		o.Patience = defaultPatience
	}
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	if o.Notice == nil {
		o.Notice = func(string) {}
	}
	if o.Wait == nil {
		o.Wait = wait
	}
}

// Validate reports what is wrong with o, joined.
func (o Options) Validate() error {
	var errs []error
	if o.Client == nil {
		errs = append(errs, errors.New("import: a server is required"))
	}
	if len(o.Paths) == 0 {
		errs = append(errs, errors.New("import: name at least one file, folder or pattern, or - for standard input"))
	}
	return errors.Join(errs...)
}

// Malformed is a record that could not be imported.
type Malformed struct {
	File   string
	Record uint64 // From 1.
	Reason string
}

// String returns where the record is and what is wrong with it.
func (m Malformed) String() string {
	return fmt.Sprintf("%s: record %d: %s", m.File, m.Record, m.Reason)
}

// Report is what an import did.
type Report struct {
	Files   int
	Skipped int // Files that an earlier import had finished.
	// Records is every record met: Uses + Repeated + Malformed.
	Records, Uses, Repeated, Malformed uint64
	// Facts counts what was learned about keys: created, disabled, deleted, in use.
	Facts uint64
	// Keys and Accounts count what the imported records name.
	Keys, Accounts int
	// Examples are the first malformed records.
	Examples []Malformed
	// Position is that of the last event written; a query may wait for it.
	Position string
	Retries  int
	Elapsed  time.Duration
}

// CloudTrail imports logs of AWS CloudTrail. It returns a report of what the server
// acknowledged, also where it ends with an error. Running it again after an error, or
// after it was stopped, changes nothing but what is missing.
func CloudTrail(ctx context.Context, opt Options) (Report, error) {
	opt.setDefaults()
	if err := opt.Validate(); err != nil {
		return Report{}, err
	}
	start := time.Now()
	files, err := find(opt.Paths)
	if err != nil {
		return Report{}, err
	}
	done, err := openResume(opt.Resume, opt.Server)
	if err != nil {
		return Report{}, err
	}
	r := &run{opt: opt, done: done, keys: make(map[string]struct{}), accounts: make(map[string]struct{})}
	for _, f := range files {
		r.total += f.size
	}
	r.report.Files = len(files)
	g, gctx := errgroup.WithContext(ctx)
	queue := make(chan *batch, 1)
	g.Go(func() error {
		defer close(queue)
		return r.read(gctx, files, queue)
	})
	for range uploads {
		g.Go(func() error {
			for b := range queue {
				if err := r.upload(gctx, b); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err = errors.Join(g.Wait(), done.close())
	return r.finish(time.Since(start)), err
}

// read takes the records out of files and sends them, in batches, to queue.
func (r *run) read(ctx context.Context, files []file, queue chan<- *batch) error {
	b := &batch{}
	for _, f := range files {
		src := &source{file: f}
		if skip, err := r.skip(src); err != nil || skip {
			if err != nil {
				return err
			}
			continue
		}
		if err := r.readFile(ctx, src, &b, queue); err != nil {
			return err
		}
		src.open(-1, r.finished)
	}
	return r.send(ctx, b, queue)
}

// skip reports whether an earlier import finished the file.
func (r *run) skip(src *source) (bool, error) {
	if !r.done.enabled() || src.file.stdin {
		return false, nil
	}
	var err error
	if src.sum, err = hashFile(src.file.path); err != nil {
		return false, err
	}
	if !r.done.has(src.sum) {
		return false, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Skipped++
	r.seen += src.file.size
	r.opt.Progress(r.seen, r.total)
	return true, nil
}

// readFile adds the records of one file to *b and sends what is full.
func (r *run) readFile(ctx context.Context, src *source, b **batch, queue chan<- *batch) (err error) {
	in := r.opt.Stdin
	if !src.file.stdin {
		f, err := os.Open(src.file.path)
		if err != nil {
			return fmt.Errorf("import: %w", err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		in = f
	}
	src.open(1, nil)
	for raw, err := range cloudtrail.Records(&counting{r: in, run: r}) {
		if bad, ok := errors.AsType[*cloudtrail.Malformed](err); ok {
			r.malformed(Malformed{File: src.file.path, Record: bad.Ordinal, Reason: describe(bad)})
			continue
		}
		if err != nil {
			return fmt.Errorf("import %s: %w", src.file.path, err)
		}
		r.note(raw.JSON)
		(*b).add(src, raw)
		if len((*b).data) < r.opt.BatchBytes && len((*b).origins) < batchRecordsMax {
			continue
		}
		if err := r.send(ctx, *b, queue); err != nil {
			return err
		}
		*b = &batch{}
	}
	return ctx.Err() //nolint:wrapcheck // The caller knows why it ended.
}

func describe(m *cloudtrail.Malformed) string {
	if m.Rest {
		return m.Reason + "; nothing after it could be read"
	}
	return m.Reason
}

func (r *run) send(ctx context.Context, b *batch, queue chan<- *batch) error {
	if len(b.origins) == 0 {
		return nil
	}
	select {
	case queue <- b:
		return nil
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // As above.
	}
}

// note counts the keys and accounts that a record names.
func (r *run) note(raw []byte) {
	o, err := (cloudtrail.Parser{}).Parse(raw)
	if err != nil {
		return // The server says so.
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	see := func(account domain.AccountID, key domain.KeyID) {
		if account != "" {
			r.accounts[string(account)] = struct{}{}
		}
		if key != "" {
			r.keys[fmt.Sprint(len(account), account, key)] = struct{}{}
		}
	}
	see(o.Use.Account, o.Use.KeyID)
	for _, f := range o.Facts {
		see(f.Account, f.ID)
	}
}
