package ingest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"
)

// Blocks are cut from a body's bytes alone: where one ends does not depend on the
// machine, so that a retry cuts the same.
const (
	blockLinesMax = 16384
	blockBytesMax = 4 << 20
)

// block is a run of whole lines.
type block struct {
	first uint64 // Number of its first line, from 0.
	data  []byte // The lines without their ends.
	ends  []int  // Of each line in data.
	// long holds the lines, counted from 0 in this block, that exceed the bound; they
	// are empty in data.
	long map[int]struct{}
	last bool // Nothing follows.
}

func (b *block) len() int { return len(b.ends) }

func (b *block) line(i int) []byte {
	from := 0
	if i > 0 {
		from = b.ends[i-1]
	}
	return b.data[from:b.ends[i]]
}

func (b *block) tooLong(i int) bool { _, ok := b.long[i]; return ok }

// blockReader cuts a body into blocks.
type blockReader struct {
	in      *bufio.Reader
	lineMax int
	next    uint64
	ended   bool
}

func newBlockReader(r io.Reader, lineMax int) *blockReader {
	return &blockReader{in: bufio.NewReaderSize(r, 256<<10), lineMax: lineMax}
}

// read returns the next block, io.EOF after the last. Only a body without any line
// has no block.
func (r *blockReader) read() (*block, error) {
	if r.ended {
		return nil, io.EOF
	}
	b := &block{first: r.next, data: make([]byte, 0, 256<<10)}
	for b.len() < blockLinesMax && len(b.data) < blockBytesMax {
		if err := r.readLine(b); err != nil {
			return nil, err
		}
		if r.ended {
			break
		}
	}
	if !r.ended {
		// Whether it is the last is known only by looking further.
		if _, err := r.in.Peek(1); errors.Is(err, io.EOF) {
			r.ended = true
		}
	}
	r.next += uint64(b.len()) //nolint:gosec // A length.
	b.last = r.ended
	if b.len() == 0 {
		return nil, io.EOF
	}
	return b, nil
}

// readLine adds one line to b. A line that is too long is read to its end and only
// noted.
func (r *blockReader) readLine(b *block) error {
	start, long := len(b.data), false
	for {
		part, err := r.in.ReadSlice('\n')
		if len(part) > 0 && part[len(part)-1] == '\n' {
			part = part[:len(part)-1]
		}
		if long = long || len(b.data)-start+len(part) > r.lineMax; !long {
			b.data = append(b.data, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			r.ended = true
			if len(b.data) == start && !long {
				return nil // What follows the last line end is no line.
			}
		case err != nil:
			return fmt.Errorf("read body: %w", err)
		}
		if long {
			if b.long == nil {
				b.long = make(map[int]struct{})
			}
			b.long[b.len()] = struct{}{}
			b.data = b.data[:start]
		}
		b.ends = append(b.ends, len(b.data))
		return nil
	}
}

// eachBlock works on the blocks of a body, several at a time, and gives the results
// to sink in the order of the blocks, one at a time. At most workers + 2 blocks are
// in memory. The first error ends everything; when eachBlock returns, nothing runs.
func eachBlock[T any](ctx context.Context, r *blockReader, workers int, work func(context.Context, *block) (T, error), sink func(context.Context, T) error) error {
	type outcome struct {
		value T
		err   error
	}
	g, ctx := errgroup.WithContext(ctx)
	queue := make(chan chan outcome, workers)
	g.Go(func() error {
		defer close(queue)
		for {
			b, err := r.read()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			result := make(chan outcome, 1)
			select {
			case queue <- result:
			case <-ctx.Done():
				return ctx.Err() //nolint:wrapcheck // The error that ended ctx is the one that is reported.
			}
			g.Go(func() error {
				value, err := work(ctx, b)
				result <- outcome{value: value, err: err}
				return nil
			})
		}
	})
	g.Go(func() error {
		for result := range queue {
			o := <-result
			if o.err != nil {
				return o.err
			}
			if err := sink(ctx, o.value); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait() //nolint:wrapcheck // Errors of this package's own functions.
}
